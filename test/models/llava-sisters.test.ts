/**
 * LLaVAs with another image encoder or decoder than LLaVA-1.5, against what transformers 5.24 computes (scripts/llava_sisters.py), and models that
 * are others under a second name.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { writeSafetensors } from '../../src/files/safetensors.ts';
import { f32, sizeOf } from '../../src/graph/dtype.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { hasFixtures, sharedDir } from '../shared.ts';
import { temporaryFolder } from '../tiny-world.ts';
import { difference } from './difference.ts';

interface Sister {
  readonly config: { readonly [key: string]: unknown; readonly vision_config: { readonly image_size: number } };
  readonly weights: Readonly<Record<string, readonly number[]>>;
  readonly prompt: string;
  readonly ids: readonly number[];
  readonly greedy: readonly number[];
  readonly logits: readonly number[];
}

const sisters = JSON.parse(readFileSync(new URL('./llava-sisters.json', import.meta.url), 'utf8')) as Record<string, Sister>;
const modern = join(sharedDir, 'fixtures-modern');
const root = temporaryFolder();
afterAll(() => rmSync(root, { recursive: true }));

/** The formula of scripts/llava_sisters.py. */
function weight(name: string, shape: readonly number[]): Float32Array {
  const count = sizeOf(shape);
  const scale = shape.length === 1 ? 0.1 : 1.5 / Math.sqrt(count / shape[0]!);
  const isScale = name.includes('norm') && name.endsWith('weight');
  return Float32Array.from({ length: count }, (_, i) => {
    const wave = Math.sin(i * 0.7311 + 1.3 * name.length);
    return isScale ? 1 + 0.1 * wave : wave * scale;
  });
}

function write(name: string, { config, weights }: Sister): string {
  const dir = join(root, name);
  mkdirSync(dir);
  for (const file of ['tokenizer.json', 'tokenizer_config.json'])
    cpSync(join(modern, 'tiny-llava_onevision', file), join(dir, file));
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
  const [edge, halves] = [config.vision_config.image_size, [0.5, 0.5, 0.5]];
  const processor = name.startsWith('siglip')
    ? { image_processor_type: 'SiglipImageProcessor', size: { height: edge, width: edge } }
    : {
        image_processor_type: 'CLIPImageProcessor',
        size: { shortest_edge: edge },
        crop_size: edge,
        image_mean: halves,
        image_std: halves,
      };
  writeFileSync(join(dir, 'preprocessor_config.json'), JSON.stringify(processor));
  const tensors = Object.entries(weights).map(([key, shape]) => [key, f32(weight(key, shape), shape)] as const);
  writeSafetensors(join(dir, 'model.safetensors'), new Map(tensors));
  return dir;
}

describe.skipIf(!hasFixtures)('against transformers', () => {
  test.each(Object.entries(sisters))('%s', async (name, sister) => {
    const vlm = loadModel(write(name, sister), { threads: 1 });
    const edge = sister.config.vision_config.image_size;
    const image: RgbImage = {
      width: edge,
      height: edge,
      data: Uint8Array.from({ length: 3 * edge * edge }, (_, i) => (37 * i) % 256),
    };
    const sequence = vlm.layout({ prompt: sister.prompt, image });
    expect(sequence.pictures.map(({ count }) => count)).toEqual([
      sister.ids.filter((id) => id === sister.config.image_token_index).length,
    ]);
    const batch = await vlm.batch([sequence]);
    const { data, shape } = await vlm.logits(batch);
    expect(difference(data.subarray(data.length - shape.at(-1)!), sister.logits)).toBeLessThan(1e-4);
    const [answer] = await unedited(vlm).generate([{ prompt: sister.prompt, image }], { maxNewTokens: sister.greedy.length });
    expect(answer!.tokenIds).toEqual(sister.greedy);
    await vlm.release();
  });

  test('a window that is shorter than the text is refused by its length', () => {
    const { config } = sisters['clip-mistral']!;
    const vlm = loadModel(write('clip-mistral-long', sisters['clip-mistral']!), { threads: 1 });
    expect((config.text_config as { sliding_window: number }).sliding_window).toBe(64);
    expect(() => vlm.layout({ prompt: 'the '.repeat(80) })).toThrow(/takes at most 64/);
  });

  test('SigLIP without its first patch is refused', () => {
    const sister = sisters['siglip-qwen2']!;
    const wrong = { ...sister, config: { ...sister.config, vision_feature_select_strategy: 'default' } };
    expect(() => loadModel(write('siglip-wrong', wrong))).toThrow(/vision_feature_select_strategy.*no class token/s);
  });

  test('an image encoder of another kind is refused by name', () => {
    const sister = sisters['clip-mistral']!;
    const vision_config = { ...sister.config.vision_config, model_type: 'pixtral' };
    const wrong = { ...sister, config: { ...sister.config, vision_config } };
    expect(() => loadModel(write('clip-wrong', wrong))).toThrow(
      /vision_config\.model_type.*expected "clip_vision_model" or "siglip_vision_model"/s,
    );
  });
});

test.skipIf(!hasFixtures)('Idefics3 and the first SmolVLM are SmolVLM2 under other names', async () => {
  const from = join(modern, 'tiny-smolvlm');
  const dir = join(root, 'idefics3');
  cpSync(from, dir, { recursive: true });
  const read = (file: string) => JSON.parse(readFileSync(join(from, file), 'utf8'));
  const config = read('config.json');
  rmSync(join(dir, 'config.json'));
  writeFileSync(
    join(dir, 'config.json'),
    JSON.stringify({
      ...config,
      model_type: 'idefics3',
      vision_config: { ...config.vision_config, model_type: 'idefics3_vision' },
    }),
  );
  const processor = read('processor_config.json');
  rmSync(join(dir, 'processor_config.json'));
  writeFileSync(
    join(dir, 'processor_config.json'),
    JSON.stringify({
      ...processor,
      image_processor: { ...processor.image_processor, image_processor_type: 'Idefics3ImageProcessor' },
    }),
  );
  const image: RgbImage = { width: 50, height: 30, data: Uint8Array.from({ length: 4500 }, (_, i) => (7 * i) % 256) };
  const said = [];
  for (const folder of [from, dir]) {
    const vlm = loadModel(folder, { threads: 1 });
    said.push(await unedited(vlm).generate([{ prompt: 'What is this?', image }], { maxNewTokens: 4 }));
    await vlm.release();
  }
  expect(said[1]).toEqual(said[0]);
});
