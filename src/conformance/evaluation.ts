/**
 * The official metrics with the fixture's adapter: teacher-forced token accuracy on the target for reliability and generality; for locality,
 * the share of the target's positions whose arg-max token the edit leaves as it was.
 */

import { basename } from 'node:path';
import { type QueryKind, queryKinds } from '../data/records.ts';
import { vead } from '../editors/vead/vead.ts';
import { answerTargets, type Query } from '../models/answer.ts';
import { tolerances } from './checks.ts';
import type { Subject } from './subject.ts';
import { editorWeights } from './vead.ts';

/** The reference's names of the five metrics. */
const reference: Record<string, QueryKind> = {
  reliability: 'reliability',
  text_rephrase: 'textGenerality',
  image_rephrase: 'modalGenerality',
  text_loc: 'textLocality',
  image_loc: 'modalLocality',
};

const share = (a: readonly number[], b: readonly number[]): number => a.filter((x, i) => x === b[i]).length / a.length;

export async function checkEvaluation(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const { evaluation } = fixture.meta;
  if (evaluation === undefined) return;
  if (fixture.meta.vead === undefined) throw new Error('meta.json has evaluation, but no vead: the adapter is not known');
  const records = fixture.records();
  const picture = (path: string) => fixture.picture(basename(path));
  const requests = await Promise.all(records.map(async ({ request }) => ({ ...request, image: await picture(request.image) })));
  const edits = await vead.edit(vlm, requests, editorWeights(subject));
  const edited = vead.with(vlm, edits);
  const found = new Map<QueryKind, number[]>();
  for (const kind of queryKinds) {
    const queries = await Promise.all(
      records.map(async (r): Promise<Query> => {
        const { image, prompt, target } = r.queries[kind];
        return { prompt, target, image: image === null ? undefined : await picture(image) };
      }),
    );
    const after = await edited.answerTargets(queries);
    const before = /Locality$/.test(kind) ? await answerTargets(vlm, queries) : undefined;
    found.set(
      kind,
      after.map((a, i) => share(before?.[i]!.predictedIds ?? a.targetIds, a.predictedIds)),
    );
  }

  for (const [r, expected] of (evaluation.per_record ?? []).entries())
    for (const [name, value] of Object.entries(expected)) {
      const kind = reference[name];
      if (kind === undefined) checks.fail('evaluation.records', `record ${r}: there is no metric ${name}`, tolerances.accuracy);
      else checks.add('evaluation.records', tolerances.accuracy, `record ${r}, ${name}`, Math.abs(found.get(kind)![r]! - value));
    }
  const { reliability, generality = {}, locality = {} } = evaluation.mean ?? {};
  for (const [name, mean] of Object.entries({ ...(reliability && { reliability }), ...generality, ...locality })) {
    const kind = reference[name];
    if (kind === undefined) checks.fail('evaluation.mean', `there is no metric ${name}`, tolerances.accuracy);
    else {
      const values = found.get(kind)!;
      checks.add(
        'evaluation.mean',
        tolerances.accuracy,
        name,
        Math.abs(values.reduce((a, b) => a + b, 0) / values.length - mean.acc),
      );
    }
  }
}
