/** Attribution, traces and chained edits on a tiny random model: what must hold whatever the weights are. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { averageModuleContribution } from '../../src/attribution/dataset-average.ts';
import { attentionInput } from '../../src/attribution/influence.ts';
import { keyTokenId } from '../../src/attribution/key-token.ts';
import { type ModuleContribution, moduleContribution } from '../../src/attribution/module-contribution.ts';
import { nextToken } from '../../src/attribution/next-token.ts';
import { onPictures, type PatchValues } from '../../src/attribution/on-pictures.ts';
import { matchSites, siteNames, trace } from '../../src/attribution/trace.ts';
import { deviation, visualAttribution, visualAttributions } from '../../src/attribution/visual-attribution.ts';
import { add, f32, input, mul, type Tensor } from '../../src/graph/index.ts';
import type { Batch } from '../../src/models/batch.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Rewrite } from '../../src/models/rewrite.ts';
import { chainRewrites } from '../../src/models/rewrite.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Weights } from '../../src/nn/weights.ts';
import { Random } from '../../src/random.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

const prompt = 'What is in the middle? The answer is:';
const dir = mkdtempSync(join(tmpdir(), 'visedit-attribution-'));
const image = randomPicture(1);
let vlm: Vlm;
let batch: Batch;

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(dir, 'model')), { threads: 1 });
  batch = await vlm.batch([vlm.layout({ prompt, image })]);
});
afterAll(async () => {
  await vlm.release();
  rmSync(dir, { recursive: true });
});

const random = () => new Random(5);

test('a layer has the same map alone and among others, in [0, 1], the same for the same seed', async () => {
  for (const noiseAt of ['hidden', 'norm'] as const) {
    const several = await visualAttributions(vlm, batch, [0, 2, 3], { protocol: 'paper', noiseAt, draws: 3, random: random() });
    expect(several.map((m) => m.layer)).toEqual([0, 2, 3]);
    const alone = await visualAttribution(vlm, batch, { layer: 2, protocol: 'paper', noiseAt, draws: 3, random: random() });
    expect(alone.values).toEqual(several[1]!.values);
    for (const { values } of several) {
      expect(values).toHaveLength(9);
      expect(Math.min(...values)).toBeGreaterThan(0);
      expect(Math.max(...values)).toBeLessThanOrEqual(1);
    }
    expect(alone.sigma === 0.7).toBe(noiseAt === 'norm');
  }
});

test('the noise of the paper is three times the deviation of the visual hidden states before the layer', async () => {
  const { activations } = await trace(vlm, { prompt, image }, ['decoder.in', 'layers.1.out']);
  const [start, end] = batch.sequences[0]!.spans[0]![0]!;
  for (const [layer, site] of [
    [0, 'decoder.in'],
    [2, 'layers.1.out'],
  ] as const) {
    const { sigma } = await visualAttribution(vlm, batch, { layer, protocol: 'paper', draws: 1, random: random() });
    const states = activations.get(site)!.data.subarray(start * 32, end * 32);
    expect(sigma).toBeCloseTo(3 * deviation(states), 5);
  }
});

test('noise that goes to nothing contributes nothing, more noise contributes more', async () => {
  const mean = async (sigma: number) => {
    const { values } = await visualAttribution(vlm, batch, { layer: 1, protocol: 'paper', sigma, draws: 4, random: random() });
    return values.reduce((a, b) => a + b, 0) / values.length;
  };
  const [none, little, much] = [await mean(1e-6), await mean(0.1), await mean(3)];
  expect(none).toBeLessThan(1e-10);
  expect(little).toBeGreaterThan(none);
  expect(much).toBeGreaterThan(little);
});

test('more draws than the model has positions, and more rows than fit one run', async () => {
  const { values } = await visualAttribution(vlm, batch, { layer: 1, protocol: 'paper', draws: 300, random: random() });
  const [few] = await visualAttributions(vlm, batch, [1], { protocol: 'paper', draws: 3, random: random() });
  expect(values.every((v) => v > 0 && v < 1)).toBe(true);
  expect(few!.values).not.toEqual(values);
});

test("the input of attention is read off the layer's own norm", async () => {
  const { activations } = await trace(vlm, { prompt, image }, ['layers.1.out', 'layers.2.attn.in']);
  const h = activations.get('layers.1.out')!;
  const program = await vlm.program(({ decoder }) => ({
    x: attentionInput(decoder, 2, new Weights(), input('h', ['b', 'l', 32])),
  }));
  const { x } = await program.run({ h: f32(h.data, [1, ...h.shape]) });
  expect(Array.from(x!.data as Float32Array)).toEqual(Array.from(activations.get('layers.2.attn.in')!.data));
});

test('bad requests say what is wrong', async () => {
  const text = await vlm.batch([vlm.layout({ prompt })]);
  await expect(visualAttribution(vlm, text, { layer: 0, random: random() })).rejects.toThrow(/needs a picture/);
  await expect(visualAttribution(vlm, batch, { layer: 4, random: random() })).rejects.toThrow(
    /layer 4 is out of range: model has layers 0 to 3/,
  );
  expect(() => keyTokenId(vlm, { prompt, image }, 'zzzy')).toThrow(/is 5 tokens: .*one token/);
});

test('a key token stands as it would after the prompt', () => {
  const id = keyTokenId(vlm, { prompt, image }, 'cat');
  expect(keyTokenId(vlm, { prompt, image }, ' cat')).toBe(id);
  expect(vlm.codec.decode([id]).trim()).toBe('cat');
  expect(vlm.layout({ prompt, image }, 'cat').targetIds).toEqual([id]);
});

test('a trace has the sites asked for, without the batch axis, and the logits that the model gives', async () => {
  const names = siteNames(vlm, true);
  expect(matchSites(names.decoder, ['layers.*.out'])).toEqual([0, 1, 2, 3].map((i) => `layers.${i}.out`));
  expect(matchSites(names.decoder, ['layers.1.**', 'logits']).at(-1)).toBe('logits');
  expect(() => matchSites(names.decoder, ['layer.*.out'])).toThrow(
    /no site is named "layer.\*.out"; there are: .*layers\.\*\.out/,
  );
  const { activations, tokenIds, spans } = await trace(vlm, { prompt, image }, ['**']);
  expect([...activations.keys()]).toEqual([...names.vision, ...names.decoder]);
  const l = tokenIds.length;
  expect(activations.get('layers.0.out')!.shape).toEqual([l, 32]);
  expect(activations.get('visual')!.shape).toEqual([9, 32]);
  expect(activations.get('layers.3.attn.key')!.shape).toEqual([4, l, 8]);
  expect(tokenIds.slice(...spans[0]![0]!)).toEqual(new Array(9).fill(-1));
  const logits = await vlm.logits(batch);
  expect(activations.get('logits')!.data).toEqual(logits.data);
  const middle = activations.get('embeddings')!.data.slice(spans[0]![0]![0] * 32, spans[0]![0]![1] * 32);
  expect(middle).toEqual(activations.get('visual')!.data);
});

test('the predicted token is the default key of module contributions, and its probability that of the last layer', async () => {
  const [found] = await moduleContribution(vlm, batch);
  const next = await nextToken(vlm, batch);
  expect(found!.tokenId).toBe(next.predicted);
  expect(found!.prob.layer.at(-1)).toBeCloseTo(next.probability(next.predicted), 5);
  const all = [...found!.contribution.attn, ...found!.contribution.mlp];
  expect(Math.max(...all.map(Math.abs))).toBeLessThanOrEqual(1);
});

test('the average over a data set is the mean of its inputs, with pictures or without', async () => {
  const inputs = [
    { prompt, image },
    { prompt: 'How many cats are there?', image: async () => randomPicture(2) },
    { prompt, keyId: 40 },
  ];
  const average = await averageModuleContribution(vlm, inputs, { batch: 2 });
  const singles: ModuleContribution[] = [];
  for (const one of inputs) {
    const picture = typeof one.image === 'function' ? await one.image() : one.image;
    const alone = await vlm.batch([vlm.layout({ prompt: one.prompt, image: picture })]);
    singles.push(...(await moduleContribution(vlm, alone, [one.keyId])));
  }
  expect(average.count).toBe(3);
  average.contribution.attn.forEach((value, i) => {
    expect(value).toBeCloseTo(singles.reduce((sum, s) => sum + s.contribution.attn[i]!, 0) / 3, 5);
  });
  await expect(averageModuleContribution(vlm, [])).rejects.toThrow(/at least one/);
});

test('values of visual tokens lie on the patch grid', async () => {
  const [{ grid, values, regionOf }] = (await onPictures(vlm, vlm.layout({ prompt, image })))([1, 2, 3, 4, 5, 6, 7, 8, 9]) as [
    PatchValues,
  ];
  expect(grid).toEqual([3, 3]);
  expect(regionOf(5)).toEqual({
    left: (2 * image.width) / 3,
    top: image.height / 3,
    width: image.width / 3,
    height: image.height / 3,
  });
  expect(values).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('rewrites of a chain follow one another, and do not share inputs', async () => {
  const rewrite = (
    name: string,
    value: number,
    change: (x: ReturnType<typeof input>, by: ReturnType<typeof input>) => ReturnType<typeof input>,
  ): Rewrite => ({
    key: name,
    patches: () => new Map([['layers.1.out', (x) => change(x, input(name, []))]]),
    replace: new Map(),
    feeds: { [name]: f32([value], []) },
  });
  const plus = rewrite('plus', 1, add);
  const times = rewrite('times', 2, mul);
  const read = async (r?: Rewrite) =>
    (await vlm.run({ from: 0, to: 2, read: ['layers.1.out'] }, batch, {}, r))['layers.1.out'] as Tensor<'float32'>;
  const plain = (await read()).data[5]!;
  expect((await read(chainRewrites([plus, times]))).data[5]).toBeCloseTo((plain + 1) * 2, 4);
  expect((await read(chainRewrites([times, plus]))).data[5]).toBeCloseTo(plain * 2 + 1, 4);
  expect(() => chainRewrites([plus, plus])).toThrow(/both|two rewrites/);
  expect((await read()).data[5]).toBe(plain);
});
