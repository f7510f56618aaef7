/** VEAD with the reference's adapter weights: where targets stand, the edit signal, logits after the edit, and nothing left when it is dropped. */

import { basename } from 'node:path';
import { type EditorWeights, modelId } from '../../src/editors/editor.ts';
import { vead, veadRewrite } from '../../src/editors/vead/vead.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import type { EditRecord } from '../../src/input/records.ts';
import { tolerances } from './checks.ts';
import type { Fixture } from './fixture.ts';
import { batchOf, type Subject } from './subject.ts';

const prefix = 'vead.weight.';

/** The adapter weights of the fixture by their own names. */
export function adapterWeights(fixture: Fixture): Map<string, Tensor<'float32'>> {
  const names = fixture.tensorNames.filter((name) => name.startsWith(prefix));
  return new Map(names.map((name) => [name.slice(prefix.length), fixture.need(name)]));
}

/** The fixture's adapter as an editor's weights. */
export function editorWeights({ fixture, vlm }: Subject): EditorWeights {
  const { edit_layer: layer, heads } = fixture.meta.vead!;
  return { editor: vead.id, model: modelId(vlm), settings: { layer, heads }, tensors: adapterWeights(fixture) };
}

/** Where the record of a query by its name in the reference's data has its picture; null: text only. */
const pictures: Record<string, (record: EditRecord) => string | null> = {
  reliability: (r) => r.queries.reliability.image,
  text_rephrase: (r) => r.queries.textGenerality.image,
  image_rephrase: (r) => r.queries.modalGenerality.image,
  text_loc: (r) => r.queries.textLocality.image,
  image_loc: (r) => r.queries.modalLocality.image,
};

type Query = NonNullable<Fixture['meta']['vead']>['queries'][number];

/** The picture of a query: its own, or that of the record which the edit is made from. */
function pictureOf(fixture: Fixture, query: Query): string | null {
  if (query.image !== undefined) return query.image;
  const { edit } = fixture.meta.vead!;
  const is = ({ request }: EditRecord): boolean =>
    request.prompt === edit.prompt && request.target === edit.target && basename(request.image) === edit.image;
  const record = fixture.records().find(is);
  const picture = pictures[query.name];
  if (record === undefined || picture === undefined)
    throw new Error(
      `the picture of query ${query.name} is not known: it names none, and vqa_records.json has no such sample of the edit`,
    );
  const path = picture(record);
  return path === null ? null : basename(path);
}

export async function checkVead(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const { meta } = fixture;
  if (meta.vead === undefined) return;
  const { edit, queries, prompt_end } = meta.vead;
  const image = await fixture.picture(edit.image);
  const [made] = await vead.edit(vlm, [{ prompt: edit.prompt, target: edit.target, image }], editorWeights(subject));
  if (prompt_end !== undefined) checks.equal('vead.prompt-end', 'the edit', [made!.settings.promptEnd as number], [prompt_end]);
  const signal = fixture.tensor('vead.edit_signal');
  if (signal !== undefined)
    checks.values('vead.edit-signal', tolerances.hidden, 'vead.edit_signal', made!.tensors.get('signal')!.data, signal.data);

  for (const query of queries) {
    const batch = await batchOf(subject, query.prompt, pictureOf(fixture, query), query.target);
    const { targetIds, promptEnd, ids } = batch.sequences[0]!;
    const { label_ids: labels, label_mask: mask } = query;
    if (labels !== undefined && mask !== undefined) {
      // Labels stand at the last positions of the sequence, each at the place that predicts it.
      const first = ids.length - labels.length;
      const isTarget = labels.map((_, i) => (first + i >= promptEnd && first + i < promptEnd + targetIds.length ? 1 : 0));
      checks.equal(
        'targets.ids',
        query.name,
        targetIds,
        labels.filter((_, i) => mask[i] === 1),
      );
      checks.equal('targets.places', query.name, isTarget, mask);
    }
    const before = await vlm.logits(batch);
    const after = await vlm.logits(batch, veadRewrite([made!]));
    const expected = fixture.tensor(`vead.logits.${query.name}`);
    if (expected !== undefined)
      checks.values('vead.logits', tolerances.logits, `vead.logits.${query.name}`, after.data, expected.data);
    const dropped = await vlm.logits(batch);
    checks.add(
      'vead.dropped',
      0,
      query.name,
      before.data.reduce((sum, x, i) => sum + (Object.is(x, dropped.data[i]) ? 0 : 1), 0),
    );
  }
}
