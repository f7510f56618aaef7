/**
 * Features that are added behind the first layers (DeepStack) act in every way that a model runs: whole, layer by layer, with rewrites at and above the
 * layers where they are added, over inputs of several shapes.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { visualAttribution } from '../../src/attribution/visual-attribution.ts';
import { editorNamed } from '../../src/editors/index.ts';
import { add, f32, input, mul, type Tensor } from '../../src/graph/index.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { loadRecords } from '../../src/input/records.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { type Query, unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { defineRewrite, type Rewrite } from '../../src/models/rewrite.ts';
import { type Sequence, visualPlaces } from '../../src/models/sequence.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { sharedDir } from '../shared.ts';
import { temporaryFolder } from '../tiny-world.ts';
import { difference } from './difference.ts';

const modern = join(sharedDir, 'fixtures-modern');

describe.skipIf(!existsSync(modern)).each(['tiny-qwen2_5_vl', 'tiny-qwen3_vl'])('%s', (name) => {
  let whole: Vlm;
  let layered: Vlm;
  let images: RgbImage[];
  let sequences: Sequence[];

  beforeAll(async () => {
    whole = loadModel(join(modern, name), { threads: 1 });
    layered = loadModel(join(modern, name), { threads: 1, residency: 'layered' });
    const files = ['landscape.png', 'portrait.png', 'thin.png'];
    images = await Promise.all(files.map((file) => decodeImage(join(modern, 'images', file))));
    sequences = [
      whole.layout({
        prompt: [{ text: 'is ' }, { picture: images[0]! }, { text: ' or ' }, { picture: images[2]! }, { text: ' red?' }],
      }),
      ...images.map((image) => whole.layout({ prompt: 'What is it?', image })),
    ];
  });
  afterAll(async () => {
    await whole.release();
    await layered.release();
  });

  const halved = defineRewrite((site: string) => ({ patches: () => new Map([[site, (x) => mul(x, 0.5)]]) }));
  const data = (tensor: Tensor | undefined): Float32Array => tensor!.data as Float32Array;

  test('layer by layer, and from any layer on, the numbers are those of a whole run', async () => {
    const { layers } = whole.decoder;
    const batch = await whole.batch(sequences);
    const other = await layered.batch(sequences);
    for (const rewrite of [undefined, ...[0, 1, 2].map((i) => halved(`layers.${i}.out`, {}))]) {
      const sites = Array.from({ length: layers }, (_, i) => `layers.${i}.out`);
      const plan = { from: 0, to: layers, read: [...sites, 'logits'] };
      const expected = await whole.run(plan, batch, {}, rewrite);
      const own = await layered.run(plan, other, {}, rewrite);
      for (const site of plan.read) expect(difference(data(own[site]), [...data(expected[site])])).toBeLessThan(1e-4);
      if (rewrite !== undefined) continue;
      for (let from = 1; from < layers; from++) {
        const hidden = expected[`layers.${from - 1}.out`] as Tensor<'float32'>;
        const { logits } = await whole.run({ from, to: layers, read: ['logits'] }, batch, { hidden });
        expect(difference(data(logits), [...data(expected.logits)])).toBeLessThan(1e-4);
      }
    }
  });

  test('answers of both say the same, alone and together', async () => {
    const queries: Query[] = images.map((image) => ({ prompt: 'What is it?', image, target: 'cat' }));
    const options = { maxNewTokens: 6 };
    const expected = await unedited(whole).generate(queries, options);
    expect(await unedited(layered).generate(queries, options)).toEqual(expected);
    expect(await unedited(whole, 1).generate(queries, options)).toEqual(expected);
    const alone = (await Promise.all(queries.map((query) => unedited(whole).generate([query], options)))).flat();
    expect(alone).toEqual(expected);
  });

  test('attribution before the norm is that of a run with the noise in what the layer reads', async () => {
    const batch = await whole.batch([sequences[1]!]);
    const { hidden: d, layers } = whole.decoder;
    const [sequence] = batch.sequences as [Sequence];
    const tokens = visualPlaces(sequence);
    const noisy = defineRewrite((site: string) => ({
      patches: () => new Map([[site, (x) => add(x, input('ε', x.shape))]]),
    }));
    for (let layer = 1; layer < layers; layer++) {
      const site = `layers.${layer}.attn.out`;
      const [sigma, token] = [0.5, layer];
      const { values } = await visualAttribution(whole, batch, {
        layer,
        protocol: 'paper',
        draws: 1,
        sigma,
        random: new Random(1),
      });
      const drawn = new Random(1).fork(`layer ${layer}`).normals(tokens.length * d, sigma);
      const noise = new Float32Array(batch.length * d);
      noise.set(drawn.subarray(token * d, (token + 1) * d), tokens[token]! * d);
      const read = async (rewrite?: Rewrite): Promise<Float32Array> => {
        const out = await whole.run({ from: 0, to: layer + 1, read: [site] }, batch, {}, rewrite);
        return data(out[site]).subarray(sequence.promptEnd * d, (sequence.promptEnd + 1) * d);
      };
      const clean = await read();
      const dirty = await read(noisy(`layers.${layer - 1}.out`, { ε: f32(noise, [1, batch.length, d]) }));
      const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
      const expected = (1 - dot(clean, dirty) / Math.sqrt(dot(clean, clean) * dot(dirty, dirty))) / 2;
      expect(Math.abs(values[token]! - expected)).toBeLessThan(1e-5);
    }
  });

  test('an edit before the last addition is the same through what pictures share and layer by layer', async () => {
    const folder = temporaryFolder();
    const files = ['landscape.png', 'portrait.png', 'square.png', 'thin.png'];
    const list = files.map((file, i) => ({
      ...{
        src: 'What is it?',
        pred: 'a',
        rephrase: 'Which is it?',
        alt: ['cat', 'dog'][i % 2],
        loc: 'Is a cat red',
        loc_ans: 'no',
      },
      ...{ image: file, image_rephrase: files[(i + 1) % 4], m_loc: files[(i + 2) % 4], m_loc_q: 'Is it red?', m_loc_a: 'yes' },
    }));
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'vqa.json'), JSON.stringify(list));
    const records = loadRecords(join(folder, 'vqa.json'), join(modern, 'images'));
    const vead = await editorNamed('vead');
    const settings = { width: 16, heads: 2, influenceWidth: 16, sampled: 4, traced: [2] };
    const weights = await vead.train!(whole, records, {
      out: join(folder, 'vead'),
      seed: 1,
      steps: 2,
      batch: 2,
      layer: 1,
      settings,
    });
    const queries: Query[] = images.map((image) => ({ prompt: 'What is it?', image, target: 'cat' }));
    const edits = await vead.edit(whole, queries.slice(0, 1), weights);
    const answers = async (vlm: Vlm): Promise<number[]> =>
      (await vead.with(vlm, edits).answerTargets(queries)).flatMap(({ logProbs }) => [...logProbs]);
    const [shared, own] = [await answers(whole), await answers(layered)];
    expect(difference(Float32Array.from(own), shared)).toBeLessThan(1e-4);
    const plain = (await unedited(whole).answerTargets(queries)).flatMap(({ logProbs }) => [...logProbs]);
    expect(difference(Float32Array.from(plain), shared)).toBeGreaterThan(1e-5);
    rmSync(folder, { recursive: true });
  });
});
