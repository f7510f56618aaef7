/** VEAD with the reference's adapter weights: where targets stand, the edit signal, logits after the edit, and nothing left when it is dropped. */

import { basename } from 'node:path';
import { type Edit, type EditorWeights, modelId } from '../../src/editors/editor.ts';
import { type AdapterShape, adapterShapes, influenceMapper } from '../../src/editors/vead/adapter.ts';
import { adapterOf } from '../../src/editors/vead/rewrite.ts';
import { vead, veadRewrite } from '../../src/editors/vead/vead.ts';
import { f32, input, type Node, sigmoid, type Tensor } from '../../src/graph/index.ts';
import type { EditRecord } from '../../src/input/records.ts';
import type { Batch } from '../../src/models/batch.ts';
import type { Rewrite } from '../../src/models/rewrite.ts';
import { placesOf, type Sequence } from '../../src/models/sequence.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Weights } from '../../src/nn/weights.ts';
import { tolerances } from './checks.ts';
import type { Fixture } from './fixture.ts';
import { withImageToken } from './messages.ts';
import { askedOf, batchOf, type Subject } from './subject.ts';

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
    const batch = await batchOf(subject, await askedOf(subject, query.prompt, pictureOf(fixture, query)), query.target);
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
    checkQuery(subject, query, batch.sequences[0]!);
    const before = await vlm.logits(batch);
    const after = await vlm.logits(batch, veadRewrite([made!]));
    const expected = fixture.tensor(`vead.logits.${query.name}`);
    if (expected !== undefined)
      checks.values(
        'vead.logits',
        tolerances.logits,
        `vead.logits.${query.name}`,
        rowsFrom(after, query.target_start),
        expected.data,
      );
    if (query.name === 'reliability') await checkAdapter(subject, batch, made!);
    const dropped = await vlm.logits(batch);
    checks.add(
      'vead.dropped',
      0,
      query.name,
      before.data.reduce((sum, x, i) => sum + (Object.is(x, dropped.data[i]) ? 0 : 1), 0),
    );
  }
}

/** Where the reference says that a query's target and visual tokens stand. */
function checkQuery({ fixture, checks }: Subject, query: Query, { ids, targetIds, promptEnd, spans }: Sequence): void {
  const { name, input_ids, target_start, visual_positions } = query;
  if (input_ids !== undefined) checks.equal('vead.tokens', name, withImageToken(ids, fixture), input_ids);
  if (target_start !== undefined) {
    checks.equal('targets.places', name, [promptEnd + 1], [target_start]);
    if (input_ids !== undefined) checks.equal('targets.ids', name, targetIds, input_ids.slice(target_start));
  }
  if (visual_positions !== undefined) checks.equal('vead.visual-places', name, placesOf(spans[0] ?? []), visual_positions);
}

/** Rows of logits [1, l, n] from the one that predicts the target's first token on. */
function rowsFrom({ data, shape }: Tensor<'float32'>, targetStart = 1): Float32Array {
  return data.subarray((targetStart - 1) * shape[2]!);
}

/** The gate of each visual token, and what the adapter makes of the visual tokens. */
async function checkAdapter({ fixture, vlm, checks }: Subject, batch: Batch, edit: Edit): Promise<void> {
  const [gate, adapted] = ['vead.gate', 'vead.adapted'].map((name) => fixture.tensor(name));
  const { shape, layer, weights } = adapterOf(edit);
  const d = vlm.decoder.hidden;
  const site = `layers.${layer}.out`;
  const plan = { from: 0, to: layer + 1, read: [site] };
  const places = placesOf(batch.sequences[0]!.spans[0] ?? []);
  const visualOf = async (rewrite?: Rewrite): Promise<Float32Array> => {
    const out = (await vlm.run(plan, batch, {}, rewrite))[site]!.data as Float32Array;
    return Float32Array.from(places.flatMap((place) => [...out.subarray(place * d, (place + 1) * d)]));
  };
  if (adapted !== undefined)
    checks.values('vead.adapted', tolerances.hidden, 'vead.adapted', await visualOf(veadRewrite([edit])), adapted.data);
  if (gate === undefined) return;
  const program = await vlm.program(gateGraph, shape);
  const signal = edit.tensors.get('signal')!.data;
  const end = (edit.settings.promptEnd as number) * d;
  const out = await program.run({
    ...Object.fromEntries(weights),
    visual: f32(await visualOf(), [1, places.length, d]),
    end: f32(signal.subarray(end, end + d), [1, d]),
  });
  checks.values('vead.gate', tolerances.contribution, 'vead.gate', out.gate!.data as Float32Array, gate.data);
}

function gateGraph(_: Vlm, shape: AdapterShape): Record<string, Node> {
  const w = new Weights();
  for (const [name, dims] of adapterShapes(shape)) w.bind(name, input(name, dims));
  return { gate: sigmoid(influenceMapper(w, shape, input('visual', [1, 'v', shape.hidden]), input('end', [1, shape.hidden]))) };
}
