/**
 * The official metrics with the fixture's adapter: teacher-forced token accuracy on the target for reliability and generality; for locality,
 * the share of the target's positions whose arg-max token the edit leaves as it was.
 */

import { basename } from 'node:path';
import type { Edit } from '../../src/editors/editor.ts';
import { vead, veadRewrite } from '../../src/editors/vead/vead.ts';
import { isLocality, tokenAccuracy } from '../../src/evaluation/metrics.ts';
import { type QueryKind, queryKinds } from '../../src/input/records.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { answerTargets, type Query, type TargetAnswer, targetRows } from '../../src/models/answer.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { tolerances } from './checks.ts';
import type { Subject } from './subject.ts';
import { isUndecided, logitsAt } from './undecided.ts';
import { editorWeights } from './vead.ts';

/** The reference's names of the five metrics. */
const reference: Record<string, QueryKind> = {
  reliability: 'reliability',
  text_rephrase: 'textGenerality',
  image_rephrase: 'modalGenerality',
  text_loc: 'textLocality',
  image_loc: 'modalLocality',
};

interface Accuracy {
  before: TargetAnswer;
  after: TargetAnswer;
  value: number;
  /** share of the target's positions where rounding chooses the token */
  undecided: number;
}

export async function checkEvaluation(subject: Subject): Promise<void> {
  const { fixture, checks } = subject;
  const { evaluation } = fixture.meta;
  if (evaluation === undefined) return;
  if (fixture.meta.vead === undefined) throw new Error('meta.json has evaluation, but no vead: the adapter is not known');
  const found = await accuracies(subject);
  const compare = (
    check: string,
    where: string,
    name: string,
    expected: number,
    of: (list: Accuracy[]) => Pick<Accuracy, 'value' | 'undecided'> | undefined,
  ): void => {
    const kind = reference[name];
    const actual = kind === undefined ? undefined : of(found.get(kind)!);
    if (actual === undefined) {
      checks.fail(check, `${where}: there is no such value`, tolerances.accuracy);
      return;
    }
    const d = Math.abs(actual.value - expected);
    const isRounding = d > tolerances.accuracy && actual.undecided > 0;
    checks.add(check, tolerances.accuracy, where, isRounding ? Math.max(0, d - actual.undecided) : d);
    if (isRounding)
      checks.note(check, `${where}: off by ${d.toFixed(3)}; two logits as good as equal decide ${actual.undecided.toFixed(3)}`);
  };
  for (const [r, answers] of (evaluation.queries ?? []).entries()) {
    for (const [name, { target_ids, before_ids, after_ids }] of Object.entries(answers)) {
      const own = found.get(reference[name]!)?.[r];
      const where = `record ${r}, ${name}`;
      const compared = [
        ['evaluation.target-ids', own?.after.targetIds, target_ids],
        ['evaluation.ids-before', own?.before.predictedIds, before_ids],
        ['evaluation.ids-after', own?.after.predictedIds, after_ids],
      ] as const;
      for (const [check, actual = [], wanted] of compared) if (wanted !== undefined) checks.equal(check, where, actual, wanted);
    }
  }
  for (const [r, expected] of (evaluation.per_record ?? []).entries()) {
    for (const [name, value] of Object.entries(expected))
      compare('evaluation.records', `record ${r}, ${name}`, name, value, (list) => list[r]);
  }
  for (const [name, expected] of Object.entries(evaluation.mean ?? {})) {
    compare('evaluation.mean', name, name, expected, (list) => ({
      value: mean(list.map((a) => a.value)),
      undecided: mean(list.map((a) => a.undecided)),
    }));
  }
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const share = (flags: readonly boolean[]): number => mean(flags.map(Number));

/** By kind of query, one accuracy per record; each record is edited alone. */
async function accuracies(subject: Subject): Promise<Map<QueryKind, Accuracy[]>> {
  const { fixture, vlm } = subject;
  const records = fixture.records();
  const picture = (path: string): Promise<RgbImage> => fixture.picture(basename(path));
  const requests = await Promise.all(records.map(async ({ request }) => ({ ...request, image: await picture(request.image) })));
  const edits = await vead.edit(vlm, requests, editorWeights(subject));
  const edited = vead.with(vlm, edits);
  const out = new Map<QueryKind, Accuracy[]>();
  for (const kind of queryKinds) {
    const queries = await Promise.all(
      records.map(
        async ({ queries: { [kind]: q } }): Promise<Query> => ({
          ...q,
          image: q.image === null ? undefined : await picture(q.image),
        }),
      ),
    );
    const before = await answerTargets(vlm, queries);
    const after = await edited.answerTargets(queries);
    const undecided = await Promise.all(
      queries.map((query, i) => undecidedPlaces(vlm, query, isLocality(kind) ? [edits[i], undefined] : [edits[i]])),
    );
    const values = after.map(
      (answer, i): Accuracy => ({
        before: before[i]!,
        after: answer,
        value: tokenAccuracy(kind, before[i]!, answer),
        undecided: share(undecided[i]!),
      }),
    );
    out.set(kind, values);
  }
  return out;
}

/** For each token of the target, whether it is undecided under any of these edits (undefined: unedited). */
async function undecidedPlaces(vlm: Vlm, query: Query, edits: readonly (Edit | undefined)[]): Promise<boolean[]> {
  const batch = await vlm.batch([vlm.layout(query, query.target)]);
  const rows = targetRows(batch);
  const each = await Promise.all(edits.map((edit) => logitsAt(vlm, batch, rows, edit && veadRewrite([edit]))));
  return rows.map((_, t) => each.some((logits) => isUndecided(logits[t]!)));
}
