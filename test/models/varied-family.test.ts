/**
 * Families that exist in this file only: pictures keep their size, so that each has its own number of visual tokens, and a row of them ends with a
 * word. One has a causal decoder; in the other layers see windows, and tokens of a run each other. Prompts with several pictures, attributions, every
 * kind of editor and evaluation work on them as they are.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { moduleContribution } from '../../src/attribution/module-contribution.ts';
import { onPictures } from '../../src/attribution/on-pictures.ts';
import { trace } from '../../src/attribution/trace.ts';
import { visualAttribution } from '../../src/attribution/visual-attribution.ts';
import { editorNamed } from '../../src/editors/index.ts';
import { evaluateRecords } from '../../src/evaluation/asking.ts';
import { f32, input, scope, sizeOf } from '../../src/graph/index.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import type { RgbImage, Segment } from '../../src/input/segments.ts';
import { type AnsweringModel, type Query, unedited } from '../../src/models/answer.ts';
import type { Architecture, Decoder, LaidToken } from '../../src/models/architecture.ts';
import { gemma3TextConfig } from '../../src/models/configs/gemma3.ts';
import { gemma3Decoder } from '../../src/models/gemma3-decoder.ts';
import { llama } from '../../src/models/llama.ts';
import { cellOf } from '../../src/models/pictures.ts';
import { Vlm, type VlmParts } from '../../src/models/vlm.ts';
import { weightShapes } from '../../src/models/weights.ts';
import { linear } from '../../src/nn/layers.ts';
import type { WeightSource } from '../../src/onnx/emit.ts';
import { Random } from '../../src/random.ts';
import { cpuEngine } from '../../src/runtime/node.ts';
import { temporaryFolder } from '../tiny-world.ts';

const [patch, features, hidden] = [4, 3 * 4 * 4, 32];
/** '|' ends a row of patches, as newline tokens do in families of today. */
const letters = ' abcdefghijklmnopqrstuvwxyz?|:';
const rowEnd = letters.indexOf('|');
const encode = (text: string): number[] => [...text.toLowerCase()].map((letter) => Math.max(0, letters.indexOf(letter)));

const sizes = {
  ...{ hidden_size: hidden, intermediate_size: 48, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 2 },
  ...{ vocab_size: letters.length, max_position_embeddings: 160, attention_bias: false, tie_word_embeddings: false },
};
const decoders = {
  causal: llama(
    { ...sizes, hidden_act: 'silu', rms_norm_eps: 1e-5, rope_theta: 10000, rope_scaling: null, mlp_bias: false },
    'language_model.',
  ),
  sighted: gemma3Decoder(
    gemma3TextConfig.parse({
      ...{ ...sizes, head_dim: 12, query_pre_attn_scalar: 10, sliding_window: 9 },
      layer_types: ['sliding_attention', 'full_attention', 'sliding_attention'],
    }),
    'language_model.',
  ),
};

const architectureOf = (decoder: Decoder): Architecture => ({
  name: 'varied',
  decoder,
  afterPicture: ' ',
  layout: (parts) => {
    let picture = -1;
    return parts.flatMap((part): LaidToken[] => {
      if ('text' in part) return encode(part.text);
      picture++;
      const [rows, columns] = part.picture.prepared?.grid ?? [1, part.picture.count];
      return Array.from({ length: rows }, (): LaidToken[] => [{ picture, run: columns }, rowEnd]).flat();
    });
  },
  pixels: () => ({ patches: input('patches', ['b', 'n', features]) }),
  vision: ({ patches }, w, sites) =>
    scope('vision', () => {
      const seen = sites.site('vision.features', linear(w, 'embed', patches!, features, 24));
      return sites.site('visual', linear(w, 'projection', seen, 24, hidden));
    }),
});

/** Patches [rows × columns, 48] of a picture whose sides are multiples of 4. */
function patchesOf({ width, height, data }: RgbImage): Float32Array {
  const [rows, columns] = [height / patch, width / patch];
  const out = new Float32Array(rows * columns * features);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) {
        const cell = Math.floor(y / patch) * columns + Math.floor(x / patch);
        out[cell * features + ((y % patch) * patch + (x % patch)) * 3 + c] = data[(y * width + x) * 3 + c]! / 128 - 1;
      }
  return out;
}

const random = new Random('varied');
const storedOf = (architecture: Architecture): WeightSource => {
  const stored = new Map(
    [...weightShapes(architecture)].map(([name, shape]) => [name, f32(random.normals(sizeOf(shape), 0.25), shape)]),
  );
  return (name) => stored.get(name);
};
const partsOf = (kind: keyof typeof decoders): VlmParts => ({
  name: kind,
  architecture: architectureOf(decoders[kind]),
  engine: cpuEngine,
  weights: storedOf(architectureOf(decoders[kind])),
  codec: { encode, decode: (ids) => ids.map((id) => letters[id]).join('') },
  processor: (image) => {
    const grid = [image.height / patch, image.width / patch] as const;
    const whole = { left: 0, top: 0, width: image.width, height: image.height };
    const count = grid[0] * grid[1];
    return {
      ...{ count, grid, regionOf: (cell) => cellOf(whole, grid, cell) },
      pixels: () => ({ patches: f32(patchesOf(image), [count, features]) }),
    };
  },
  eosIds: [],
  fingerprint: () => `${kind} 1`,
  compileOptions: { threads: 1 },
});

const pictureOf = (width: number, height: number): RgbImage => ({
  width,
  height,
  data: Uint8Array.from({ length: 3 * width * height }, () => random.int(256)),
});
const [wide, tall, small] = [pictureOf(16, 8), pictureOf(8, 12), pictureOf(8, 8)];
const both: Segment[] = [{ text: 'is ' }, { picture: wide }, { text: ' or ' }, { picture: tall }, { text: ' red?' }];
const queries: Query[] = [
  { prompt: both, target: 'wide' },
  { prompt: 'what is it?', image: small, target: 'cat' },
  { prompt: 'what is it?', image: wide, target: 'dog' },
  { prompt: 'is a cat red?', target: 'no' },
];
const folder = temporaryFolder();
let records: EditRecord[];

beforeAll(async () => {
  mkdirSync(join(folder, 'images'));
  const shapes = [
    [16, 8],
    [8, 12],
    [8, 8],
    [12, 12],
  ] as const;
  for (const [i, [width, height]] of shapes.entries()) {
    const { data } = pictureOf(width, height);
    await sharp(data, { raw: { width, height, channels: 3 } })
      .png()
      .toFile(join(folder, 'images', `${i}.png`));
  }
  const list = Array.from({ length: 8 }, (_, i) => ({
    ...{
      src: 'what is it?',
      pred: 'a',
      rephrase: 'which is it?',
      alt: ['cat', 'dog'][i % 2],
      loc: 'is a cat red',
      loc_ans: 'no',
    },
    ...{ image: `${i % 4}.png`, image_rephrase: `${(i + 1) % 4}.png` },
    ...{ m_loc: `${(i + 2) % 4}.png`, m_loc_q: 'is it red?', m_loc_a: 'yes' },
  }));
  writeFileSync(join(folder, 'vqa.json'), JSON.stringify(list));
  records = loadRecords(join(folder, 'vqa.json'), join(folder, 'images'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const logProbs = async (model: AnsweringModel, asked: readonly Query[]): Promise<number[][]> =>
  (await model.answerTargets(asked)).map((answer) => [...answer.logProbs]);
const worst = (a: number[][], b: number[][]): number => Math.max(...a.flat().map((x, i) => Math.abs(x - b.flat()[i]!)));

describe.each(['causal', 'sighted'] as const)('%s', (kind) => {
  const vlm = new Vlm(partsOf(kind));
  afterAll(() => vlm.release());

  test('a prompt of two pictures has the runs of both, and regions of the original pictures', () => {
    const { spans, pictures, ids } = vlm.layout({ prompt: both });
    expect(pictures.map(({ count }) => count)).toEqual([8, 6]);
    expect(spans).toEqual([
      [
        [3, 7],
        [8, 12],
      ],
      [
        [17, 19],
        [20, 22],
        [23, 25],
      ],
    ]);
    expect(ids.filter((id) => id < 0)).toHaveLength(14);
    expect(pictures[1]!.prepared!.regionOf(3)).toEqual({ left: 4, top: 4, width: 4, height: 4 });
  });

  test('inputs of any kind asked together, or through what pictures share, are answered as alone', async () => {
    const alone = (await Promise.all(queries.map((query) => logProbs(unedited(vlm), [query])))).flat();
    expect(worst(await logProbs(unedited(vlm), queries), alone)).toBeLessThan(1e-4);
    expect(worst(await logProbs(unedited(vlm, 1), queries), alone)).toBeLessThan(1e-4);
    const options = { maxNewTokens: 5 };
    const said = (await Promise.all(queries.map((query) => unedited(vlm).generate([query], options)))).flat();
    expect(await unedited(vlm).generate(queries, options)).toEqual(said);
    expect(await unedited(vlm, 1).generate(queries, options)).toEqual(said);
  });

  test('attribution of both pictures is drawn on each', async () => {
    const batch = await vlm.batch([vlm.layout({ prompt: both })]);
    const [modules] = await moduleContribution(vlm, batch);
    expect(modules!.contribution.attn).toHaveLength(3);
    const { values } = await visualAttribution(vlm, batch, { layer: 1, protocol: 'paper', draws: 2, random: new Random(1) });
    expect(values).toHaveLength(14);
    const maps = (await onPictures(vlm, batch.sequences[0]!))(values);
    expect(maps.map(({ grid }) => grid)).toEqual([
      [2, 4],
      [3, 2],
    ]);
    expect(maps.flatMap((map) => map.values)).toEqual(values);
    const { activations, spans } = await trace(vlm, { prompt: both }, ['layers.*.out', 'visual']);
    expect(spans).toHaveLength(2);
    expect(activations.get('visual')!.shape).toEqual([8, hidden]);
  });

  // SERAC answers edited questions by a model of its own, whose decoder is always the same.
  const editors = ['vead', 'mend', 'm-ore', 'ke', 'lte', 'tp', 'ike', 'ft-l', 'ft-v', ...(kind === 'causal' ? ['serac'] : [])];
  test.each(editors)('%s trains, edits and is evaluated', async (id) => {
    const editor = await editorNamed(id);
    const settings: Record<string, Record<string, number | boolean | number[]>> = {
      vead: { width: 16, heads: 2, influenceWidth: 16, sampled: 4, traced: [2] },
      ke: { window: 6, lstm: 8, condition: 8 },
    };
    const options = { out: join(folder, kind, id), seed: 1, steps: 3, batch: 2, settings: settings[id] ?? {} };
    const own = id === 'vead' ? { ...options, layer: 1 } : options;
    const given = id === 'tp' || id === 'ike' ? { out: own.out, seed: 1, settings: {} } : own;
    const weights = editor.trained ? await editor.train!(vlm, records, given) : undefined;
    const requests = id === 'ft-v' || id === 'serac' ? [queries[1]!] : [queries[0]!, queries[1]!];
    const edits = await editor.edit(vlm, requests, weights);
    const asked = [requests[0]!, queries[2]!, queries[3]!];
    const under = editor.with(vlm, edits.slice(0, 1));
    const after = await logProbs(under, asked);
    expect(after.flat().every(Number.isFinite)).toBe(true);
    const alone = (await Promise.all(asked.map((query) => logProbs(under, [query])))).flat();
    expect(worst(after, alone)).toBeLessThan(1e-3);
    if (editor.promises.textUntouched) expect(after[2]).toEqual((await logProbs(unedited(vlm), [queries[3]!]))[0]);
    const { metrics } = await evaluateRecords(vlm, editor, weights, records.slice(0, 2));
    expect(metrics.average).toBeGreaterThanOrEqual(0);
  });

  test('several edits of VEAD at once act on both pictures of a prompt', async () => {
    const vead = await editorNamed('vead');
    const weights = await vead.train!(vlm, records, {
      ...{ out: join(folder, kind, 'vead'), seed: 1, steps: 3, batch: 2, layer: 1, resume: true },
      settings: { width: 16, heads: 2, influenceWidth: 16, sampled: 4, traced: [2] },
    });
    const edits = await vead.edit(vlm, queries.slice(0, 3), weights);
    const chained = await logProbs(vead.chain!(vlm, edits), queries);
    const alone = (await Promise.all(queries.map((query) => logProbs(vead.chain!(vlm, edits), [query])))).flat();
    expect(worst(chained, alone)).toBeLessThan(1e-3);
  });
});
