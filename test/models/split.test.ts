/** What segments leave out must not change what they return: logits of chosen rows, causal attention in runs, keys and values for decoding. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { i64, input, mul } from '../../src/graph/index.ts';
import type { Batch } from '../../src/models/batch.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Rewrite } from '../../src/models/rewrite.ts';
import { Sites } from '../../src/models/sites.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Weights } from '../../src/nn/weights.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

const dir = mkdtempSync(join(tmpdir(), 'visedit-split-'));
let vlm: Vlm;
let batch: Batch;
const prompts = ['What is in the middle?', 'How many cats are there? The answer is:'];

beforeAll(async () => {
  // 324 visual tokens: long enough for attention in runs.
  vlm = loadModel(writeRandomLlava(join(dir, 'model'), { side: 18, patch: 2, positions: 512, keyHeads: 2 }), { threads: 1 });
  batch = await vlm.batch(prompts.map((prompt, i) => vlm.layout({ prompt, image: randomPicture(i + 1, 36) }, 'a cat')));
});
afterAll(async () => {
  await vlm.release();
  rmSync(dir, { recursive: true });
});

const largest = (a: Float32Array, b: Float32Array): number => a.reduce((worst, x, i) => Math.max(worst, Math.abs(x - b[i]!)), 0);

/** Logits of a plain run of all layers over all positions. */
async function plainLogits(): Promise<Float32Array> {
  const { decoder } = vlm;
  const program = await vlm.program(() => {
    const weights = new Weights();
    const positions = input('positions', ['b', 'l'], 'int64');
    const bias = input('bias', ['b', 1, 'l', 'l']);
    let x = input('x', ['b', 'l', decoder.hidden]);
    for (let i = 0; i < decoder.layers; i++) x = decoder.layer(i, x, { weights, sites: new Sites(), positions, bias });
    return { logits: decoder.head(x, weights) };
  });
  const x = (await vlm.run({ from: 0, to: 0, read: ['decoder.in'] }, batch))['decoder.in']!;
  return (await program.run({ ...batch.feeds, x })).logits!.data as Float32Array;
}

test('all logits, and the logits of chosen rows, are those of a plain run', async () => {
  const { vocabulary: n } = vlm.decoder;
  const plain = await plainLogits();
  expect(largest((await vlm.logits(batch)).data, plain)).toBeLessThan(1e-4);
  const rows = batch.sequences.flatMap((s, i) => [s.promptEnd, s.promptEnd + 1].map((at) => i * batch.length + at));
  for (const from of [0, 2, 3, 4]) {
    const site = `layers.${from - 1}.out`;
    const hidden = from === 0 ? undefined : (await vlm.run({ from: 0, to: from, read: [site] }, batch))[site]!;
    const out = await vlm.run({ from, to: 4, read: ['logits'], rows: true }, batch, {
      rows: i64(rows, [rows.length]),
      ...(hidden === undefined ? {} : { hidden }),
    });
    const got = out.logits!.data as Float32Array;
    rows.forEach((row, i) => {
      expect(largest(got.subarray(i * n, (i + 1) * n), plain.subarray(row * n, (row + 1) * n)), `from ${from}`).toBeLessThan(
        1e-4,
      );
    });
  }
});

test('keys and values of the last layer are whole, and a rewrite within it still acts', async () => {
  const rows = { rows: i64([batch.sequences[0]!.promptEnd], [1]) };
  const whole = await vlm.run({ from: 0, to: 4, read: ['layers.3.attn.key', 'layers.3.out'] }, batch);
  const cut = await vlm.run({ from: 0, to: 4, read: ['logits', 'layers.3.attn.key'], rows: true }, batch, rows);
  expect(cut['layers.3.attn.key']!.shape).toEqual([2, 2, batch.length, 8]);
  expect(largest(cut['layers.3.attn.key']!.data as Float32Array, whole['layers.3.attn.key']!.data as Float32Array)).toBeLessThan(
    1e-4,
  );
  const both = await vlm.run({ from: 0, to: 4, read: ['logits', 'layers.3.out'], rows: true }, batch, rows);
  expect(both['layers.3.out']!.shape).toEqual([2, batch.length, 32]);
  const silent: Rewrite = {
    key: 'silent',
    patches: () => new Map([['layers.3.mlp.out', (x) => mul(x, 0)]]),
    replace: new Map(),
    feeds: {},
  };
  const other = await vlm.run({ from: 0, to: 4, read: ['logits'], rows: true }, batch, rows, silent);
  expect(largest(other.logits!.data as Float32Array, cut.logits!.data as Float32Array)).toBeGreaterThan(1e-3);
});
