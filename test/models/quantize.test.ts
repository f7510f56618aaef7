/** Rounded models: near the float model, whole or layer by layer, at load or from a folder; and nothing left when it is stopped. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Blocks, dequantizeBlocks } from '../../src/files/blocks.ts';
import { openCheckpoint } from '../../src/files/folder.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { f32, i64, type Tensor } from '../../src/graph/dtype.ts';
import { add } from '../../src/graph/index.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { unedited } from '../../src/models/answer.ts';
import { convert } from '../../src/models/convert.ts';
import { type LoadOptions, loadModel } from '../../src/models/load.ts';
import { quantize } from '../../src/models/quantize.ts';
import type { Rewrite } from '../../src/models/rewrite.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';
import { difference } from './difference.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-quantize-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Widths that blocks divide, and layers enough for a prefix and a suffix. */
const sizes = { hidden: 64, heads: 4, keyHeads: 2, mlp: 96, visionHidden: 64, visionLayers: 1, layers: 3 };
let dir: string;
beforeAll(() => {
  dir = writeRandomLlava(join(scratch, 'random'), sizes);
});

const image = randomPicture('quantize');
const prompt = 'What is in the middle?';

async function withModel<T>(model: string, options: LoadOptions, use: (vlm: Vlm) => Promise<T>): Promise<T> {
  const vlm = loadModel(model, { threads: 1, ...options });
  try {
    return await use(vlm);
  } finally {
    await vlm.release();
  }
}

const logits = (model: string, options: LoadOptions = {}, rewrite?: Rewrite): Promise<Float32Array> =>
  withModel(model, options, async (vlm) => {
    const batch = await vlm.batch([
      vlm.layout({ prompt, image }, 'a cat'),
      vlm.layout({ prompt, image: randomPicture('other') }),
    ]);
    return (await vlm.logits(batch, rewrite)).data;
  });

/** |a - b| / |b| */
function distance(a: Float32Array, b: Float32Array): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return Math.sqrt(difference / size);
}

const answers = (model: string, options: LoadOptions = {}) =>
  withModel(model, options, (vlm) =>
    unedited(vlm).generate([{ prompt, image }, { prompt: 'What colour is the sky?' }], { maxNewTokens: 5 }),
  );

describe('layer by layer', () => {
  test.each(['layered', 'mapped'] as const)('%s: the numbers and answers of the whole', async (residency) => {
    expect(difference(await logits(dir, { residency }), await logits(dir))).toBeLessThan(1e-5);
    expect(await answers(dir, { residency })).toEqual(await answers(dir));
  });

  test('half-precision weights, widened at each use', async () => {
    const half = writeRandomLlava(join(scratch, 'half'), { ...sizes, half: true });
    expect(difference(await logits(half, { residency: 'mapped' }), await logits(half))).toBeLessThan(1e-5);
  });

  test('segments, sites and chosen rows', async () => {
    const ask = (residency: 'whole' | 'layered') =>
      withModel(dir, { residency }, async (vlm) => {
        const batch = await vlm.batch([vlm.layout({ prompt, image }, 'a cat')]);
        const names = ['embeddings', 'decoder.in', 'layers.0.attn.in', 'layers.0.mlp.out', 'layers.1.attn.key', 'layers.1.out'];
        const first = await vlm.run({ from: 0, to: 2, read: names }, batch);
        const hidden = first['layers.1.out']!;
        const rows = i64([batch.length - 2, batch.length - 1], [2]);
        const second = await vlm.run({ from: 2, to: 3, read: ['logits', 'layers.2.attn.out'], rows: true }, batch, {
          hidden,
          rows,
        });
        return { ...first, ...second };
      });
    const [whole, layered] = [await ask('whole'), await ask('layered')];
    expect(Object.keys(layered).sort()).toEqual(Object.keys(whole).sort());
    for (const [name, t] of Object.entries(whole)) {
      expect(layered[name]!.shape, name).toEqual(t.shape);
      expect(difference(layered[name]!.data as Float32Array, t.data as Float32Array), name).toBeLessThan(1e-5);
    }
    await expect(
      withModel(dir, { residency: 'layered' }, async (vlm) => {
        const batch = await vlm.batch([vlm.layout({ prompt, image })]);
        return vlm.run({ from: 0, to: 1, read: ['layers.2.out'] }, batch);
      }),
    ).rejects.toThrow('there is no site layers.2.out in layers 0 to 0');
  });

  const name = 'language_model.model.layers.1.mlp.down_proj.weight';
  const rewrites: Record<string, Rewrite> = {
    'the output of a layer': rewriteOf('out', ['layers.1.out'], []),
    'the entry and inside of a layer': rewriteOf('in', ['decoder.in', 'layers.0.mlp.out'], []),
    'the last layer and a weight': rewriteOf('weight', ['layers.2.out'], [name]),
  };
  test.each(Object.entries(rewrites))('a rewrite of %s', async (_, rewrite) => {
    const plain = await logits(dir);
    const expected = await logits(dir, {}, rewrite);
    expect(difference(expected, plain)).toBeGreaterThan(1e-2);
    expect(difference(await logits(dir, { residency: 'layered' }, rewrite), expected)).toBeLessThan(1e-5);
    const generate = (residency: 'whole' | 'layered') =>
      withModel(dir, { residency }, (vlm) =>
        import('../../src/models/answer.ts').then(({ generateAll }) =>
          generateAll(vlm, [{ prompt, image }], { maxNewTokens: 6 }, () => rewrite),
        ),
      );
    expect(await generate('layered')).toEqual(await generate('whole'));
  });
});

function rewriteOf(key: string, sites: readonly string[], weights: readonly string[]): Rewrite {
  return {
    key,
    patches: () => new Map(sites.map((site) => [site, (x) => add(x, 0.5)])),
    replace: new Map(weights.map((weight) => [weight, (w) => add(w, 0.1)])),
    feeds: {},
  };
}

describe('rounded', () => {
  test.each(['int8', 'int4'] as const)(
    '%s: what its rounded weights compute, at load and from a folder, whole and layered',
    async (dtype) => {
      const out = join(scratch, dtype);
      const written = await quantize(dir, { out, dtype });
      const file = openSafetensors(join(out, 'model.safetensors'));
      expect(file.entries.size).toBe(written.tensors);
      const bytes = dtype === 'int4' ? 16 : 32;
      expect(file.entry('language_model.model.layers.0.self_attn.q_proj.weight.data').shape).toEqual([64, 2, bytes]);
      expect(file.entry('language_model.lm_head.weight.data').shape[2]).toBe(32);
      const exact = await logits(dequantized(out, join(scratch, `${dtype}-floats`)));
      expect(distance(exact, await logits(dir))).toBeLessThan(dtype === 'int4' ? 0.5 : 0.05);
      expect(distance(await logits(out, { residency: 'mapped' }), exact)).toBeLessThan(1e-5);
      // Packed blocks round activations to 8 bits as well.
      const packed = await logits(out);
      expect(distance(packed, exact)).toBeLessThan(0.05);
      expect(distance(packed, exact)).toBeGreaterThan(1e-4);
      expect(distance(await logits(out, { residency: 'layered' }), exact)).toBeLessThan(0.05);
      expect(await logits(dir, { dtype })).toEqual(packed);
      expect(loadModel(out).fingerprint).toBe(loadModel(dir).fingerprint);
      expect(openCheckpoint(out).fingerprint()).not.toBe(loadModel(dir).fingerprint);
    },
  );

  test('a converted copy of a rounded folder is the same; other types and rounding twice are refused', async () => {
    const out = join(scratch, 'once');
    await quantize(dir, { out, dtype: 'int4' });
    await convert(out, { out: join(scratch, 'copy') });
    expect(await logits(join(scratch, 'copy'))).toEqual(await logits(out));
    const none = join(scratch, 'none');
    await expect(convert(out, { out: none, dtype: 'float16' })).rejects.toThrow(
      'is stored in int4, which has no floats to convert',
    );
    await expect(quantize(out, { out: none, dtype: 'int8' })).rejects.toThrow('is stored in int4 already');
    await expect(quantize(dir, { out, dtype: 'int8' })).rejects.toThrow('is not empty; name a new folder');
    expect(() => loadModel(out, { dtype: 'float16' })).toThrow('once is stored in int4; for float16 open the model');
    expect(existsSync(none)).toBe(false);
  });

  test('of damaged folders the parts are named', async () => {
    const out = join(scratch, 'parts');
    await quantize(dir, { out, dtype: 'int4' });
    const path = join(out, 'model.safetensors');
    const file = openSafetensors(path);
    const name = 'language_model.model.layers.1.mlp.up_proj.weight';
    const tensors = new Map([...file.entries.keys()].map((key) => [key, file.readTensor(key)]));
    const scales = tensors.get(`${name}.scales`)!;
    tensors.set(`${name}.scales`, { ...scales, shape: [scales.shape[1]!, scales.shape[0]!] });
    tensors.delete('language_model.lm_head.weight.zeros');
    writeSafetensors(path, tensors);
    expect(() => loadModel(out)).toThrow(
      /up_proj\.weight\.scales is \[2, 96\] .* asks for \[96, 2\][\s\S]*lm_head\.weight\.zeros is missing/,
    );
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'));
    writeFileSync(join(out, 'config.json'), JSON.stringify({ ...config, quantization_config: { quant_method: 'gptq' } }));
    expect(() => loadModel(out)).toThrow('quantization_config.quant_method "gptq" is not known');
  });

  test('stopped, and with a value that cannot be rounded, it leaves nothing behind', async () => {
    const at = join(scratch, 'stopped');
    mkdirSync(at);
    const controller = new AbortController();
    await expect(
      quantize(dir, { out: join(at, 'out'), dtype: 'int4', signal: controller.signal, onProgress: () => controller.abort() }),
    ).rejects.toThrow(/^stopped; nothing is left of the rounding/);
    const broken = writeRandomLlava(join(scratch, 'broken'), sizes);
    const file = openSafetensors(join(broken, 'model.safetensors'));
    const tensors = new Map([...file.entries.keys()].map((key) => [key, file.readTensor(key)]));
    const name = 'language_model.model.layers.1.mlp.up_proj.weight';
    (tensors.get(name)!.data as Float32Array)[70] = Number.NaN;
    writeSafetensors(join(broken, 'model.safetensors'), tensors);
    await expect(quantize(broken, { out: join(at, 'out'), dtype: 'int8' })).rejects.toThrow(
      `${name} cannot be rounded: it holds`,
    );
    expect(readdirSync(at)).toEqual([]);
  });
});

/** The same model with the floats that its blocks stand for. */
function dequantized(from: string, to: string): string {
  cpSync(from, to, { recursive: true });
  const file = openSafetensors(join(from, 'model.safetensors'));
  const tensors = new Map<string, Tensor>();
  for (const name of file.entries.keys()) {
    if (/\.(scales|zeros)$/.test(name)) continue;
    const weight = name.replace(/\.data$/, '');
    if (weight === name) {
      tensors.set(name, file.readTensor(name));
      continue;
    }
    const [data, scales, zeros] = ['data', 'scales', 'zeros'].map((part) => file.readTensor(`${weight}.${part}`));
    const blocks = { data, scales, zeros } as Blocks;
    const bits = zeros!.shape[1] === scales!.shape[1] ? 8 : 4;
    const floats = dequantizeBlocks(blocks, bits);
    tensors.set(weight, f32(floats, [data!.shape[0]!, floats.length / data!.shape[0]!]));
  }
  writeSafetensors(join(to, 'model.safetensors'), tensors);
  const { quantization_config: _, ...config } = JSON.parse(readFileSync(join(from, 'config.json'), 'utf8'));
  writeFileSync(join(to, 'config.json'), JSON.stringify(config));
  return to;
}

describe.skipIf(!hasFixtures).each(['tiny-llava', 'tiny-blip2-opt', 'tiny-minigpt4'])('%s', (name) => {
  test('rounded to 8 and 4 bits it opens and computes what its rounded weights say', async () => {
    const from = join(fixturesDir, name);
    let folder = from;
    if (name === 'tiny-minigpt4') {
      await expect(quantize(from, { out: join(scratch, 'none'), dtype: 'int4' })).rejects.toThrow('make one folder of it first');
      folder = join(scratch, 'one-folder');
      await convert(from, { out: folder });
    }
    const pictures = await Promise.all(
      [0, 1, 2, 3].map((scene) => decodeImage(join(fixturesDir, 'images', `scene${scene}.png`))),
    );
    const ask = (model: string, options: LoadOptions = {}, picture = pictures[1]!): Promise<Float32Array> =>
      withModel(model, options, async (vlm) => {
        const { data } = await vlm.logits(await vlm.batch([vlm.layout({ prompt: 'What is on the left?', image: picture })]));
        return data;
      });
    for (const dtype of ['int8', 'int4'] as const) {
      const out = join(scratch, `${name}-${dtype}`);
      await quantize(folder, { out, dtype });
      const exact = await ask(dequantized(out, `${out}-floats`));
      expect(distance(await ask(out, { residency: 'mapped' }), exact), dtype).toBeLessThan(1e-4);
      expect(distance(await ask(out), exact), dtype).toBeLessThan(0.2);
    }
    const longer = join(scratch, `${name}-64`);
    await quantize(folder, { out: longer, dtype: 'int4', block: 64 });
    const exact = await ask(dequantized(longer, `${longer}-floats`));
    expect(distance(await ask(longer, { residency: 'mapped' }), exact)).toBeLessThan(1e-4);
    // Rounding what is multiplied moves these random models by 3 to 30 %, from picture to picture; so the mean is taken.
    let sum = 0;
    for (const picture of pictures) sum += distance(await ask(longer, {}, picture), await ask(`${longer}-floats`, {}, picture));
    expect(sum / pictures.length).toBeLessThan(0.2);
    const sizes = [join(scratch, `${name}-int4`), longer].map((out) => openSafetensors(join(out, 'model.safetensors')).size);
    expect(sizes[1]).toBeLessThan(sizes[0]!);
  });
});
