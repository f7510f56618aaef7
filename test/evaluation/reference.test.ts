/** The metrics of the authors' code over the fixtures' records, with the adapter weights stored there. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { isUndecided, logitsAt } from '../../lab/conformance/undecided.ts';
import { type EditorWeights, modelId } from '../../src/editors/editor.ts';
import { vead, veadRewrite } from '../../src/editors/vead/vead.ts';
import { evaluateRecords } from '../../src/evaluation/asking.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords, type QueryKind } from '../../src/input/records.ts';
import { targetRows } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { type Expected, expectedModels, expectedOf } from '../models/fixtures.ts';
import { fixturesDir } from '../shared.ts';

interface Reference {
  vead: { edit_layer: number; heads: number };
  evaluation: { mean: unknown; per_record: Record<string, number>[] };
}

const names: Record<QueryKind, string> = {
  reliability: 'reliability',
  textGenerality: 'text_rephrase',
  modalGenerality: 'image_rephrase',
  textLocality: 'text_loc',
  modalLocality: 'image_loc',
};

function storedAdapter({ tensors }: Expected): Map<string, Tensor<'float32'>> {
  const prefix = 'vead.weight.';
  const stored = [...tensors.entries.keys()].filter((name) => name.startsWith(prefix));
  return new Map(
    stored.map((name) => [name.slice(prefix.length), tensors.readTensor(name, { as: 'float32' }) as Tensor<'float32'>]),
  );
}

/** Share of the target's positions at which rounding chooses the token, before the edit or after. */
async function undecidedShare(
  vlm: Vlm,
  weights: EditorWeights,
  { request, queries }: EditRecord,
  kind: QueryKind,
): Promise<number> {
  const { image, prompt, target } = queries[kind];
  const picture = image === null ? undefined : await decodeImage(image);
  const batch = await vlm.batch([vlm.layout({ prompt, image: picture }, target)]);
  const [edit] = await vead.edit(vlm, [{ ...request, image: await decodeImage(request.image) }], weights);
  const rows = targetRows(batch);
  const before = await logitsAt(vlm, batch, rows);
  const after = await logitsAt(vlm, batch, rows, veadRewrite([edit!]));
  return rows.filter((_, i) => isUndecided(before[i]!) || isUndecided(after[i]!)).length / rows.length;
}

describe.skipIf(expectedModels.length === 0).each(expectedModels.length > 0 ? expectedModels : ['none'])('%s', (name) => {
  test('per record and in the mean', async () => {
    const expected = expectedOf(name);
    const { vead: adapter, evaluation } = expected.meta as unknown as Reference;
    const vlm = loadModel(expected.dir, { threads: 1 });
    const records = loadRecords(join(fixturesDir, 'vqa_records.json'), join(fixturesDir, 'images'));
    const weights: EditorWeights = {
      editor: 'vead',
      model: modelId(vlm),
      settings: { layer: adapter.edit_layer, heads: adapter.heads, influenceMapper: true, crossAttention: true },
      tensors: storedAdapter(expected),
    };
    const { results, metrics } = await evaluateRecords(vlm, vead, weights, records, { maxNewTokens: 2 });
    for (const [kind, theirs] of Object.entries(names) as [QueryKind, string][]) {
      let undecided = 0;
      for (const [i, { queries }] of results.entries()) {
        const share = await undecidedShare(vlm, weights, records[i]!, kind);
        const off = Math.abs(queries[kind]!.accuracy - evaluation.per_record[i]![theirs]!);
        expect(off, `record ${i}, ${kind}`).toBeLessThanOrEqual(share + 1e-6);
        undecided += share / records.length;
      }
      const mean = evaluation.per_record.reduce((sum, record) => sum + record[theirs]!, 0) / records.length;
      expect(Math.abs(metrics[kind] - mean), kind).toBeLessThanOrEqual(undecided + 1e-6);
    }
    await vlm.release();
  });
});
