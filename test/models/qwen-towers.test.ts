/** The image encoders of Qwen2.5-VL and Qwen3-VL on random weights: windows, pictures beside each other, layers that go deeper. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseConfig } from '../../src/files/config.ts';
import { f32, type Node, type Tensor } from '../../src/graph/index.ts';
import { qwen3VlConfig, qwen25VlConfig } from '../../src/models/configs/qwen-vl.ts';
import { qwen3Inputs, qwen3Merger, qwen3Places, qwen3Tower } from '../../src/models/qwen3-tower.ts';
import { qwen25Inputs, qwen25Merger, qwen25Places, qwen25Tower, windowsOf } from '../../src/models/qwen25-tower.ts';
import { Sites } from '../../src/models/sites.ts';

import { stackInputs } from '../../src/models/vision.ts';
import { Weights } from '../../src/nn/weights.ts';
import { Random } from '../../src/random.ts';
import { compileRandom, randomWeights } from '../attribution/direct.ts';
import { difference } from './difference.ts';

type Grid = readonly [number, number];
const shared = { depth: 3, hidden_size: 16, intermediate_size: 20, num_heads: 2, patch_size: 3, out_hidden_size: 12 };
const text = { hidden_size: 12, num_attention_heads: 2, num_key_value_heads: 1, num_hidden_layers: 3 };

const tower25 = (given: object) => {
  const sections = { rope_parameters: { mrope_section: [1, 1, 1] } };
  const raw = { model_type: 'qwen2_5_vl', vision_config: { ...shared, ...given }, text_config: { ...text, ...sections } };
  const config = parseConfig('config.json', qwen25VlConfig, raw).vision_config;
  const inputs = qwen25Inputs(config);
  const w = new Weights();
  const visual = qwen25Merger(qwen25Tower(inputs, config, 'v.', w, new Sites()), config, 'v.', w);
  return { visual, places: (grid: Grid) => qwen25Places(config, grid), merge: config.spatial_merge_size };
};
const tower3 = (given: object) => {
  const raw = { model_type: 'qwen3_vl', vision_config: { ...shared, ...given }, text_config: { ...text, head_dim: 6 } };
  const config = parseConfig('config.json', qwen3VlConfig, raw).vision_config;
  const w = new Weights();
  const visual = qwen3Merger(qwen3Tower(qwen3Inputs(config), config, 'v.', w, new Sites()), config, 'v.', w);
  return { visual, places: (grid: Grid) => qwen3Places(config, grid), merge: config.spatial_merge_size };
};
type Tower = ReturnType<typeof tower25>;

const pixelsOf = (grid: Grid, merge: number, seed: number): Tensor<'float32'> => {
  const patches = grid[0] * grid[1] * merge * merge;
  return f32(new Random(seed).normals(patches * 54, 1), [patches, 54]);
};

/** Visual tokens of pictures in one run, which all have as many. */
async function see({ visual, places, merge }: Tower, grids: readonly Grid[], weightOf = randomWeights('tower', 1)) {
  const program = await compileRandom({ visual: visual as Node }, weightOf);
  const given = grids.map((grid, i) => ({ pixels: pixelsOf(grid, merge, i), ...places(grid) }));
  const { data } = (await program.run(stackInputs(given))).visual as Tensor<'float32'>;
  await program.release();
  const size = data.length / grids.length;
  return grids.map((_, i) => data.slice(i * size, (i + 1) * size));
}

test('windows share out the visual tokens, each no larger than a window', () => {
  const sizes = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 5 }));
  fc.assert(
    fc.property(sizes, ([rows, columns, side]) => {
      const windows = windowsOf([rows, columns], side);
      expect(windows.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: rows * columns }, (_, i) => i));
      for (const window of windows) {
        expect(new Set(window.map((token) => Math.floor(Math.floor(token / columns) / side))).size).toBe(1);
        expect(new Set(window.map((token) => Math.floor((token % columns) / side))).size).toBe(1);
      }
    }),
  );
});

test('a window that holds the whole picture, or more, is no window', async () => {
  for (const grid of [
    [1, 1],
    [1, 5],
    [3, 2],
  ] as const) {
    const [windowed] = await see(tower25({ window_size: 60, fullatt_block_indexes: [] }), [grid]);
    const [full] = await see(tower25({ window_size: 6, fullatt_block_indexes: [0, 1, 2] }), [grid]);
    expect(difference(windowed!, [...full!])).toBeLessThan(1e-5);
  }
});

test.each([
  ['Qwen2.5-VL', () => tower25({ window_size: 12, fullatt_block_indexes: [1] })],
  ['Qwen3-VL', () => tower3({ num_position_embeddings: 9, deepstack_visual_indexes: [0] })],
])('%s: pictures of as many tokens in other grids are seen side by side as alone', async (_, make) => {
  const tower = make();
  // Both of the windowed tower's grids have two windows.
  const grids: Grid[] = [
    [2, 4],
    [4, 2],
  ];
  const together = await see(tower, grids);
  for (const [i, grid] of grids.entries()) {
    const program = await compileRandom({ visual: tower.visual as Node }, randomWeights('tower', 1));
    const { visual } = await program.run(stackInputs([{ pixels: pixelsOf(grid, tower.merge, i), ...tower.places(grid) }]));
    expect(difference(together[i]!, [...(visual!.data as Float32Array)])).toBeLessThan(1e-5);
    await program.release();
  }
});

test('layers that go deeper follow each other by their number; each has the merger of its place in the configuration', async () => {
  const weightOf = randomWeights('tower', 1);
  const swapped: typeof weightOf = (name, shape) =>
    weightOf(
      name.replace(/merger_list\.(\d)/, (_, i: string) => `merger_list.${1 - Number(i)}`),
      shape,
    );
  const [inOrder] = await see(tower3({ num_position_embeddings: 9, deepstack_visual_indexes: [0, 2] }), [[2, 3]], weightOf);
  const [turned] = await see(tower3({ num_position_embeddings: 9, deepstack_visual_indexes: [2, 0] }), [[2, 3]], swapped);
  expect(turned).toEqual(inOrder);
});
