/** BLIP2-OPT and MiniGPT-4 from folders put together in other ways, and from parts that do not belong together. */
import {
  chmodSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { openWeights } from '../../src/files/torch-folder.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { f32, gradient, sum } from '../../src/graph/index.ts';
import type { PreparedPicture } from '../../src/input/segments.ts';
import type { Batch } from '../../src/models/batch.ts';
import { loadModel, weightShapes } from '../../src/models/load.ts';
import { interpolate, openMiniGpt4 } from '../../src/models/minigpt4-folder.ts';
import { drawOnPatches, patchMap } from '../../src/models/patch-map.ts';
import { Sites } from '../../src/models/sites.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Weights } from '../../src/nn/weights.ts';
import { compile } from '../../src/runtime/node.ts';
import { type StoredTensor, torchFile } from '../files/torch-files.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';
import { difference } from './difference.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-models-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const blip = join(fixturesDir, 'tiny-blip2-opt');
const mini = join(fixturesDir, 'tiny-minigpt4');
/** A writable copy of a model folder. */
function copyOf(dir: string, name: string): string {
  const to = join(scratch, name);
  cpSync(dir, to, { recursive: true });
  // Fixtures may be read-only.
  for (const entry of readdirSync(to, { recursive: true, withFileTypes: true }))
    chmodSync(join(entry.parentPath, entry.name), 0o755);
  chmodSync(to, 0o755);
  return to;
}
function rewrite(path: string, change: (text: string) => string): void {
  const text = change(readFileSync(path, 'utf8'));
  rmSync(path, { force: true });
  writeFileSync(path, text);
}
const json = (path: string, change: (value: never) => unknown): void =>
  rewrite(path, (text) => JSON.stringify(change(JSON.parse(text) as never)));
const load = (dir: string): Vlm => loadModel(dir, { threads: 1 });

const pixelsOf = (vlm: Vlm): Tensor<'float32'> => {
  const [h, w] = vlm.architecture.fixed!.size;
  return f32(
    Float32Array.from({ length: 3 * h * w }, (_, i) => Math.sin(i * 0.37)),
    [3, h, w],
  );
};
/** A picture of which only the pixel values are known. */
const preparedOf = (vlm: Vlm): PreparedPicture => {
  const { count, grid } = vlm.architecture.fixed!;
  const regionOf = () => ({ left: 0, top: 0, width: 1, height: 1 });
  return { count, grid, regionOf, pixels: () => ({ pixels: pixelsOf(vlm) }) };
};
const batchOf = (vlm: Vlm): Promise<Batch> =>
  vlm.batch([vlm.layout({ prompt: 'What is this?', image: vlm.pictureOf('sines', () => preparedOf(vlm)) })]);
async function logitsOf(vlm: Vlm): Promise<Float32Array> {
  return (await vlm.logits(await batchOf(vlm))).data;
}

describe.skipIf(!hasFixtures)('the same model in other files', () => {
  test('BLIP2-OPT from pytorch_model.bin gives the same logits, and so do tied embeddings under the name of the head', async () => {
    const dir = copyOf(blip, 'blip-bin');
    const file = openSafetensors(join(dir, 'model.safetensors'));
    const tensors: Record<string, StoredTensor> = {};
    for (const [name, e] of file.entries) {
      const stored = name.endsWith('embed_tokens.weight') ? 'language_model.lm_head.weight' : name;
      tensors[stored] = { storage: 'HalfStorage', shape: e.shape, count: e.bytes / 2, data: file.readBytes(e) };
    }
    rmSync(join(dir, 'model.safetensors'), { force: true });
    writeFileSync(join(dir, 'pytorch_model.bin'), torchFile(tensors));
    expect(difference(await logitsOf(load(dir)), await logitsOf(load(blip)))).toBe(0);
  });

  test('a folder of links, as hubs keep their downloads', async () => {
    const dir = copyOf(blip, 'blip-links');
    const blob = join(scratch, 'blob');
    renameSync(join(dir, 'model.safetensors'), blob);
    symlinkSync(blob, join(dir, 'model.safetensors'));
    expect(difference(await logitsOf(load(dir)), await logitsOf(load(blip)))).toBe(0);
  });

  test('MiniGPT-4 in one safetensors folder', async () => {
    const { config, checkpoint } = openMiniGpt4(mini);
    const published = load(mini);
    const dir = copyOf(join(mini, 'vicuna'), 'mini-one');
    rmSync(join(dir, 'pytorch_model.bin'), { force: true });
    rewrite(join(dir, 'config.json'), () => JSON.stringify(config));
    writeFileSync(
      join(dir, 'preprocessor_config.json'),
      JSON.stringify({ image_processor_type: 'BlipImageProcessor', size: { height: 56, width: 56 } }),
    );
    const names = [...weightShapes(published.architecture).keys()];
    writeSafetensors(join(dir, 'model.safetensors'), Object.fromEntries(names.map((name) => [name, checkpoint.get(name)])));
    const one = load(dir);
    expect(one.architecture.name).toBe('minigpt4');
    expect(difference(await logitsOf(one), await logitsOf(published))).toBe(0);
    const asked = { prompt: 'What is this?', image: one.anyPicture };
    expect(one.layout(asked).ids).toEqual(published.layout(asked).ids);
  });

  test('MiniGPT-4 leaves out the last blocks of an encoder that has more', async () => {
    const dir = copyOf(mini, 'mini-depth');
    json(join(dir, 'eva_vit_config.json'), ({ vit }: { vit: object }) => ({ vit: { ...vit, depth: 2 } }));
    const names = [...weightShapes(load(dir).architecture).keys()];
    expect(names.some((name) => name.startsWith('visual_encoder.blocks.1.'))).toBe(true);
    expect(names.some((name) => name.startsWith('visual_encoder.blocks.2.'))).toBe(false);
  });

  test('MiniGPT-4 at another picture size interpolates the positions', async () => {
    const dir = copyOf(mini, 'mini-size');
    json(join(dir, 'eva_vit_config.json'), ({ vit }: { vit: object }) => ({ vit: { ...vit, img_size: 84 } }));
    expect(() => load(dir)).toThrow(/processor_config\.yaml: image_size is 56, but the image encoder takes pictures of 84/);
    rewrite(join(dir, 'processor_config.yaml'), () => 'image_size: 84\nmean: [0.5, 0.5, 0.5]\n');
    const vlm = load(dir);
    expect(vlm.architecture.fixed!.grid).toEqual([6, 6]);
    const grey = { width: 9, height: 7, data: new Uint8Array(189).fill(255) };
    const pixels = vlm.processor(grey).pixels().pixels as Tensor<'float32'>;
    expect(pixels.shape).toEqual([3, 84, 84]);
    expect(pixels.data[0]).toBeCloseTo(0.5 / 0.26862954, 5);
    expect((await vlm.see([preparedOf(vlm)]))[0]!.data.every(Number.isFinite)).toBe(true);
    const ramp = Float32Array.from({ length: 16 }, (_, i) => i % 4);
    const wide = interpolate(ramp, 4, 8, 1);
    // torch.nn.functional.interpolate(mode='bicubic', align_corners=False)
    const torch = [-0.10546875, 0.19140625, 0.66796875, 1.296875, 1.703125, 2.33203125, 2.80859375, 3.10546875];
    expect(difference(wide.subarray(0, 8), torch)).toBeLessThan(1e-6);
    const squares = Float32Array.from({ length: 9 }, (_, i) => i * i);
    expect(difference(interpolate(squares, 3, 2, 1), [1.43076, 6.52237, 32.39737, 53.18076])).toBeLessThan(1e-4);
    expect([...interpolate(ramp, 4, 4, 1)]).toEqual([...ramp]);
  });
});

describe.skipIf(!hasFixtures)('parts that do not belong together are named', () => {
  const withTensors = (name: string, change: (tensors: Map<string, Tensor>) => void): string => {
    const dir = copyOf(blip, name);
    const path = join(dir, 'model.safetensors');
    const file = openSafetensors(path);
    const tensors = new Map(file.names().map((n) => [n, file.readTensor(n)]));
    change(tensors);
    rmSync(path, { force: true });
    writeSafetensors(path, tensors);
    return dir;
  };
  const half = (shape: number[]): Tensor => ({
    dtype: 'float16',
    shape,
    data: new Uint16Array(shape.reduce((a, b) => a * b, 1)),
  });

  test('an OPT folder with the projection and language model of a FLAN-T5 one', () => {
    const projection = withTensors('blip-projection', (t) => t.set('language_projection.weight', half([128, 48])));
    expect(() => load(projection)).toThrow(
      /language_projection\.weight is \[128, 48\] in model\.safetensors, the configuration asks for \[80, 48\]/,
    );
    const t5 = withTensors('blip-t5', (t) => {
      for (const [name, tensor] of [...t]) {
        if (!name.startsWith('language_model.')) continue;
        t.delete(name);
        t.set(name.replace('model.decoder.layers', 'encoder.block'), tensor);
      }
    });
    expect(() => load(t5)).toThrow(
      /weights do not fit[\s\S]*language_model\.model\.decoder\.layers\.\{0\.\.5\}\.fc1\.weight is missing[\s\S]*not read by this model: .*language_model\.encoder\.block/,
    );
    const config = copyOf(blip, 'blip-config');
    json(join(config, 'config.json'), (c: object) => ({ ...c, use_decoder_only_language_model: false }));
    expect(() => load(config)).toThrow(/use_decoder_only_language_model: only true is supported/);
  });

  test('weights that are whole numbers, and weights that are no numbers', async () => {
    const whole = withTensors('blip-whole', (t) =>
      t.set('language_projection.weight', { dtype: 'int32', shape: [80, 48], data: new Int32Array(80 * 48) }),
    );
    expect(() => load(whole)).toThrow(/language_projection\.weight is stored as I32 in model\.safetensors; weights must be F32/);
    const broken = load(
      withTensors('blip-nan', (t) => {
        const { shape, data } = t.get('language_projection.weight')!;
        (data as Uint16Array)[7] = 0x7e00;
        t.set('language_projection.weight', { dtype: 'float16', shape, data });
      }),
    );
    await expect(broken.see([preparedOf(broken)])).rejects.toThrow(
      /visual has values that are not finite numbers, since language_projection\.weight in .*model\.safetensors holds NaN as element 7 of/,
    );
    await broken.release();
  });

  test('a tokenizer of another model', () => {
    const llava = copyOf(join(fixturesDir, 'tiny-llava'), 'llava-token');
    json(join(llava, 'config.json'), (c: object) => ({ ...c, image_token_index: 5 }));
    expect(() => load(llava)).toThrow(/config\.json: image_token_index is 5, but <image> is token 1000/);
    const opt = copyOf(blip, 'blip-vocabulary');
    json(join(opt, 'config.json'), (c: { text_config: object }) => ({
      ...c,
      text_config: { ...c.text_config, vocab_size: 300 },
    }));
    const path = join(opt, 'model.safetensors');
    const file = openSafetensors(path);
    const tensors = new Map(file.names().map((name) => [name, file.readTensor(name)]));
    for (const [name, { shape, data }] of [...tensors].filter(([name]) => /embed_tokens|lm_head/.test(name)))
      tensors.set(name, { dtype: 'float16', shape: [300, shape[1]!], data: (data as Uint16Array).slice(0, 300 * shape[1]!) });
    writeSafetensors(path, tensors);
    expect(() => load(opt).layout({ prompt: 'How many 2s are on the bus?' })).toThrow(
      /the tokenizer makes token \d+ of the input, the model knows 300/,
    );
  });

  test('a Q-Former of another width, or with cross-attention in other layers', () => {
    const narrow = copyOf(blip, 'blip-narrow');
    json(join(narrow, 'config.json'), (c: { vision_config: object }) => ({
      ...c,
      vision_config: { ...c.vision_config, hidden_size: 32 },
    }));
    expect(() => load(narrow)).toThrow(/the Q-Former reads picture features of width 64, the image encoder gives 32/);
    const often = copyOf(blip, 'blip-often');
    json(join(often, 'config.json'), (c: { qformer_config: object }) => ({
      ...c,
      qformer_config: { ...c.qformer_config, cross_attention_frequency: 1 },
    }));
    expect(() => load(often)).toThrow(/qformer\.encoder\.layer\.\{1,3\}\.crossattention\.attention\.query\.weight is missing/);
  });

  test('MiniGPT-4: the projection of another Vicuna, the Q-Former of another encoder, a missing file', () => {
    const vicuna = copyOf(mini, 'mini-vicuna');
    writeFileSync(
      join(vicuna, 'pretrained.pth'),
      torchFile(
        {
          'llama_proj.weight': { storage: 'FloatStorage', shape: [128, 48], count: 6144, data: new Uint8Array(24576) },
          'llama_proj.bias': { storage: 'FloatStorage', shape: [128], count: 128, data: new Uint8Array(512) },
        },
        'model',
      ),
    );
    rewrite(join(vicuna, 'model_config.yaml'), (text) => text.replace('pretrained_minigpt4.pth', 'pretrained.pth'));
    expect(() => load(vicuna)).toThrow(
      /llama_proj\.weight is \[128, 48\] in pretrained\.pth, the configuration asks for \[64, 48\]/,
    );
    const encoder = copyOf(mini, 'mini-encoder');
    json(join(encoder, 'eva_vit_config.json'), ({ vit }: { vit: object }) => ({ vit: { ...vit, embed_dim: 32 } }));
    expect(() => load(encoder)).toThrow(
      /layer\.\{0,2\}\.crossattention\.self\.key\.weight is \[48, 64\] in blip2_pretrained\.pth, the configuration asks for \[48, 32\]/,
    );
    const missing = copyOf(mini, 'mini-missing');
    rmSync(join(missing, 'eva_vit_g.pth'), { force: true });
    expect(() => load(missing)).toThrow(/eva_vit_g\.pth does not exist/);
    const yaml = copyOf(mini, 'mini-yaml');
    rewrite(join(yaml, 'model_config.yaml'), () => 'llama_model: vicuna\nvit_path: 3\n');
    expect(() => load(yaml)).toThrow(/model_config\.yaml does not fit:\n[\s\S]*vit_path[\s\S]*q_former_model/);
    rewrite(join(yaml, 'model_config.yaml'), () => 'a: [1\nb: }');
    expect(() => load(yaml)).toThrow(/model_config\.yaml is not valid YAML/);
    // Aliases of aliases must not grow without bound.
    const bomb = [
      'a0: &a0 [x]',
      ...Array.from({ length: 30 }, (_, i) => `a${i + 1}: &a${i + 1} [*a${i}, *a${i}, *a${i}, *a${i}]`),
    ].join('\n');
    rewrite(join(yaml, 'model_config.yaml'), () => bomb);
    expect(() => load(yaml)).toThrow(/model_config\.yaml is not valid YAML|does not fit/);
  });
});

describe.skipIf(!hasFixtures)('the Q-Former', () => {
  test.each([blip, mini])('%s: sites, and where its tokens look', async (dir) => {
    const vlm = load(dir);
    const { architecture, decoder } = vlm;
    const sites = new Sites();
    architecture.vision(architecture.pixels(), new Weights(), sites);
    const names = sites.names();
    expect(names).toContain('visual');
    expect(names).toContain('vision.layers.0.out');
    expect(names.filter((n) => n.endsWith('cross.attn'))).toEqual(['qformer.layers.0.cross.attn', 'qformer.layers.2.cross.attn']);
    expect(names.filter((n) => /^qformer\.layers\.\d\.out$/.test(n)).length).toBe(4);
    expect(sites.get('visual').shape).toEqual(['b', 8, decoder.hidden]);
    expect(sites.get('qformer.layers.2.cross.attn').shape).toEqual(['b', 4, 8, 17]);

    const map = (await patchMap(vlm, preparedOf(vlm)))!;
    expect(map.shape).toEqual([8, 16]);
    const program = await vlm.program(() => ({
      a: sites.get('qformer.layers.0.cross.attn'),
      c: sites.get('qformer.layers.2.cross.attn'),
    }));
    const { a, c } = await program.run({ pixels: { ...pixelsOf(vlm), shape: [1, 3, ...architecture.fixed!.size] } });
    for (const q of [0, 7]) {
      const mean = Array.from(
        { length: 17 },
        (_, p) =>
          [a, c]
            .flatMap((t) => [0, 1, 2, 3].map((h) => (t!.data as Float32Array)[(h * 8 + q) * 17 + p]!))
            .reduce((s, v) => s + v) / 8,
      );
      expect(mean.reduce((s, v) => s + v)).toBeCloseTo(1, 5);
      expect(difference(map.data.subarray(q * 16, (q + 1) * 16), mean.slice(1))).toBeLessThan(1e-6);
    }
    const drawn = drawOnPatches([1, 0, 0, 0, 0, 0, 0, 2], map);
    expect(drawn.reduce((s, v) => s + v)).toBeCloseTo(3, 5);
    await vlm.release();
  });

  test('LLaVA has no map: its tokens are patches', async () => {
    const vlm = load(join(fixturesDir, 'tiny-llava'));
    expect(await patchMap(vlm, preparedOf(vlm))).toBeUndefined();
  });

  test('gradients flow to the projection and through the whole image side', async () => {
    const vlm = load(mini);
    const w = new Weights();
    const visual = vlm.architecture.vision(vlm.architecture.pixels(), w, new Sites());
    const names = ['llama_proj.bias', 'visual_encoder.blocks.0.attn.q_bias', 'query_tokens'];
    const grads = gradient(
      sum(visual),
      names.map((n) => w.entries().get(n)!),
    );
    const program = await compile(Object.fromEntries(names.map((n, i) => [n, grads[i]!])), { weights: vlm.weights, threads: 1 });
    const out = await program.run({ pixels: { ...pixelsOf(vlm), shape: [1, 3, 56, 56] } });
    expect([...(out['llama_proj.bias']!.data as Float32Array)]).toEqual(new Array(64).fill(8));
    for (const n of names) expect((out[n]!.data as Float32Array).some((v) => v !== 0)).toBe(true);
    await program.release();
  });
});

describe.skipIf(!hasFixtures)('prompts', () => {
  test('MiniGPT-4: the picture stands where the prompt has it, by default at the start', () => {
    const vlm = load(mini);
    const image = vlm.anyPicture;
    const usual = vlm.layout({ prompt: 'What is this?', image });
    expect(vlm.layout({ prompt: '<ImageHere>\nWhat is this?', image }).ids).toEqual(usual.ids);
    expect(usual.spans).toEqual([[[1, 9]]]);
    const late = vlm.layout({ prompt: 'see <ImageHere> here', image });
    expect(late.ids).toEqual([
      ...vlm.codec.encode('see '),
      ...new Array(8).fill(-1),
      ...vlm.codec.encode(' here', { special: false }),
    ]);
    expect(() => vlm.layout({ prompt: '<ImageHere><ImageHere>', image })).toThrow(/2 times and one picture/);
    expect(() => vlm.layout({ prompt: '<ImageHere>' })).toThrow(/no image was given/);
  });

  test('BLIP2-OPT: the visual tokens stand before everything', () => {
    const vlm = load(blip);
    const s = vlm.layout({ prompt: 'What is this?', image: vlm.anyPicture }, 'a bus');
    expect(s.spans).toEqual([[[0, 8]]]);
    expect(s.ids[8]).toBe(2);
    expect(s.ids.slice(s.promptEnd + 1)).toEqual(s.targetIds);
  });

  test('the weights of every file are named in the fingerprint', () => {
    expect(load(mini).fingerprint).toBe(load(mini).fingerprint);
    expect(load(mini).fingerprint).not.toBe(openWeights(join(mini, 'vicuna')).fingerprint());
  });
});
