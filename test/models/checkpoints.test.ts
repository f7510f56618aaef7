/**
 * Folders as transformers 4.52 to 5.24 write them. The ids are what transformers 5.24.0 answers on the same folders (float32, eager attention,
 * greedy, "Is this a photo of a dog?" about scene0.png), unless another version is named.
 */
import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { openWeights } from '../../src/files/torch-folder.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { generateAll } from '../../src/models/answer.ts';
import { blip2Layout } from '../../src/models/configs/blip2.ts';
import { llavaLayout } from '../../src/models/configs/llava.ts';
import { describeConfig } from '../../src/models/layouts.ts';
import { loadModel, weightShapes } from '../../src/models/load.ts';
import { miniGpt4Layout } from '../../src/models/minigpt4.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-checkpoints-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

type Fields = Record<string, unknown>;
const readFields = (path: string): Fields => JSON.parse(readFileSync(path, 'utf8')) as Fields;

/** A copy of a fixture whose JSON files are changed; undefined removes a file. */
function folder(model: string, changes: Record<string, ((fields: Fields) => Fields) | undefined> = {}): string {
  const dir = mkdtempSync(join(scratch, 'model-'));
  cpSync(join(fixturesDir, model), dir, { recursive: true });
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true }))
    chmodSync(join(entry.parentPath, entry.name), 0o755);
  for (const [name, change] of Object.entries(changes)) {
    const path = join(dir, name);
    if (change === undefined) rmSync(path);
    else writeFileSync(path, JSON.stringify(change(readdirSync(dir).includes(name) ? readFields(path) : {})));
  }
  return dir;
}

const scene = (): ReturnType<typeof decodeImage> => decodeImage(join(fixturesDir, 'images', 'scene0.png'));
async function answerOf(vlm: Vlm, maxNewTokens?: number, prompt = 'Is this a photo of a dog?'): Promise<number[]> {
  const [answer] = await generateAll(vlm, [{ image: await scene(), prompt }], { maxNewTokens });
  return answer!.tokenIds;
}
async function answerIn(dir: string, maxNewTokens?: number, prompt?: string): Promise<number[]> {
  const vlm = loadModel(dir, { threads: 1 });
  const ids = await answerOf(vlm, maxNewTokens, prompt);
  await vlm.release();
  return ids;
}

/** config.json as 5.24 writes it, with other settings of rotary positions. */
const withRope = (rope: Fields) => (config: Fields) => ({
  ...config,
  transformers_version: '5.24.0',
  text_config: { ...(config.text_config as Fields), rope_parameters: rope },
});

const short = [1, 1.1, 1.2, 1.4, 1.7, 2, 2.5, 3];
const long = [1, 2, 3, 4, 5, 6, 7, 8];

describe.skipIf(!hasFixtures)('rope_parameters', () => {
  test.each<[string, Fields, number[]]>([
    ['another base', { rope_type: 'default', rope_theta: 77777 }, [312, 112, 963, 999, 999, 952, 503, 858]],
    [
      'yarn',
      { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 128, rope_theta: 10000 },
      [567, 442, 622, 218, 6, 221, 442, 999],
    ],
    [
      'yarn, attention factor given',
      {
        rope_type: 'yarn',
        factor: 8,
        original_max_position_embeddings: 64,
        attention_factor: 0.7,
        beta_fast: 16,
        beta_slow: 2,
        rope_theta: 5000,
      },
      [322, 218, 195, 745, 57, 638, 254, 64],
    ],
    [
      'yarn, two scales, not cut to whole pairs',
      {
        rope_type: 'yarn',
        factor: 8,
        original_max_position_embeddings: 64,
        mscale: 0.7,
        mscale_all_dim: 1.3,
        truncate: false,
        rope_theta: 10000,
      },
      [322, 218, 6, 619, 74, 959, 587, 641],
    ],
    ['yarn, first length left out', { rope_type: 'yarn', factor: 2, rope_theta: 10000 }, [312, 681, 763, 380, 999, 999, 44, 329]],
    [
      'longrope',
      {
        rope_type: 'longrope',
        factor: 4,
        original_max_position_embeddings: 128,
        rope_theta: 10000,
        short_factor: short,
        long_factor: long,
      },
      [643, 205, 148, 215, 999, 640, 858, 650],
    ],
    [
      'longrope, factor from the lengths',
      { rope_type: 'longrope', original_max_position_embeddings: 128, rope_theta: 10000, short_factor: short, long_factor: long },
      [643, 205, 148, 215, 999, 640, 858, 650],
    ],
    ['dynamic', { rope_type: 'dynamic', factor: 2.5, rope_theta: 10000 }, [643, 681, 165, 587, 987, 442, 544, 735]],
    [
      'llama3',
      {
        rope_type: 'llama3',
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 64,
        rope_theta: 500000,
      },
      [509, 731, 443, 443, 195, 850, 872, 102],
    ],
    [
      'proportional',
      { rope_type: 'proportional', factor: 2, partial_rotary_factor: 0.5, rope_theta: 10000 },
      [122, 544, 689, 906, 399, 453, 681, 665],
    ],
  ])('%s', async (_, rope, ids) => {
    expect(await answerIn(folder('tiny-llava', { 'config.json': withRope(rope) }), 8)).toEqual(ids);
  });

  test('texts that would need the long factors are refused', () => {
    const rope = { rope_type: 'longrope', original_max_position_embeddings: 128, short_factor: short, long_factor: long };
    const vlm = loadModel(folder('tiny-llava', { 'config.json': withRope(rope) }));
    expect(vlm.decoder.maxPositions).toBe(128);
    const config = withRope({ ...rope, short_factor: [1, 2] });
    expect(() => loadModel(folder('tiny-llava', { 'config.json': config }))).toThrow(/one number per pair of a head/);
  });
});

/** Settings of generation_config.json, and what is answered with at most 16 tokens. */
const rules: [string, Fields, number[]][] = [
  ['nothing', {}, [643, 681, 165, 587, 987, 442, 544, 735, 221, 257, 380, 1005, 10, 814, 438, 131]],
  [
    'bad words',
    { bad_words_ids: [[643], [681, 165], [2], [221, 257]] },
    [312, 309, 999, 999, 30, 81, 737, 76, 84, 545, 760, 87, 449, 660, 877, 963],
  ],
  [
    'suppressed',
    { suppress_tokens: [643, 681, 165] },
    [312, 309, 999, 999, 30, 81, 737, 76, 84, 545, 760, 87, 449, 660, 877, 963],
  ],
  [
    'suppressed at the start',
    { begin_suppress_tokens: [643] },
    [312, 309, 999, 999, 30, 81, 737, 76, 84, 545, 760, 87, 449, 660, 877, 963],
  ],
  ['several ends', { eos_token_id: [165, 587] }, [643, 681]],
  [
    'no end among the first four',
    { min_new_tokens: 4, eos_token_id: [165, 587] },
    [643, 681, 136, 641, 202, 806, 514, 846, 159, 969, 131, 591, 131, 927, 292, 999],
  ],
  [
    'no end below a length',
    { min_length: 30, eos_token_id: [165, 587] },
    [643, 681, 136, 641, 202, 806, 514, 846, 159, 969, 131, 591, 131, 927, 292, 999],
  ],
  ['a forced end', { forced_eos_token_id: 2 }, [643, 681, 165, 587, 987, 442, 544, 735, 221, 257, 380, 1005, 10, 814, 438]],
  [
    'ends that grow likelier',
    { exponential_decay_length_penalty: [2, 1.6], eos_token_id: [257, 44] },
    [643, 681, 165, 587, 987, 442],
  ],
  [
    'numbers that are added',
    {
      sequence_bias: [
        [[643], -5],
        [[681, 165], -10],
        [[44], 3],
      ],
    },
    [312, 309, 999, 999, 44, 287, 509, 426, 116, 329, 665, 306, 329, 937, 131, 221],
  ],
];

describe.skipIf(!hasFixtures)('generation_config.json', () => {
  const version = (config: Fields): Fields => ({ ...config, transformers_version: '5.24.0' });
  const withSettings = (settings: Fields): string =>
    folder('tiny-llava', { 'config.json': version, 'generation_config.json': (given) => ({ ...given, ...settings }) });

  test.each(rules)('%s', async (_, settings, ids) => {
    expect(await answerIn(withSettings(settings), 16)).toEqual(ids);
  });

  test('several at once, and the length where none is asked for', async () => {
    const settings = {
      repetition_penalty: 1.5,
      no_repeat_ngram_size: 2,
      suppress_tokens: [987],
      bad_words_ids: [[442]],
      min_new_tokens: 3,
      max_new_tokens: 7,
    };
    const vlm = loadModel(withSettings(settings));
    expect(await answerOf(vlm)).toEqual([643, 681, 165, 587, 87, 213, 593]);
    expect((await answerOf(vlm, 3)).length).toBe(3);
  });

  test('repetitions, as transformers 4.43', async () => {
    const dir = folder('tiny-llava', {
      'generation_config.json': (given) => ({
        ...given,
        repetition_penalty: 1.5,
        no_repeat_ngram_size: 2,
        num_beams: 1,
        top_k: null,
      }),
    });
    expect(await answerIn(dir, 24, 'What is in the picture? The answer is:')).toEqual([
      880, 425, 999, 438, 329, 545, 480, 952, 574, 370, 814, 352, 279, 500, 44, 660, 984, 925, 958, 987, 745, 210, 927, 408,
    ]);
  });

  test.each<[Fields, number[]]>([
    [{ repetition_penalty: 1.5 }, [9, 744, 634, 463, 247, 761, 432, 253, 263, 702, 115, 669]],
    [{ no_repeat_ngram_size: 2 }, [9, 9, 761, 263, 263, 582, 277, 277, 9, 744, 744, 247]],
  ])('BLIP-2 counts the tokens of its prompt: %j', async (settings, ids) => {
    const dir = folder('tiny-blip2-opt', { 'generation_config.json': (given) => ({ ...given, ...settings }) });
    expect(await answerIn(dir, 12, 'What is in the picture? The answer is:')).toEqual(ids);
  });

  test('without the file, config.json says it, of the decoder or of the whole', async () => {
    const dir = folder('tiny-llava', {
      'generation_config.json': undefined,
      'config.json': (config) => ({
        ...version(config),
        suppress_tokens: [643],
        text_config: { ...(config.text_config as Fields), suppress_tokens: [1], eos_token_id: [999] },
      }),
    });
    expect(await answerIn(dir, 16)).toEqual([312, 309]);
  });

  test('what is not computed is named when an answer is asked for; damaged settings when the model opens', async () => {
    const vlm = loadModel(withSettings({ num_beams: 4, stop_strings: ['.'] }));
    await expect(answerOf(vlm, 2)).rejects.toThrow(
      /generation_config\.json asks for num_beams 4, stop_strings \["\."\], which is not computed here/,
    );
    expect(() => loadModel(withSettings({ repetition_penalty: -1 }))).toThrow(/repetition_penalty: expected a number above 0/);
    expect(() => loadModel(withSettings({ bad_words_ids: [7] }))).toThrow(/bad_words_ids/);
  });
});

describe.skipIf(!hasFixtures)('processor settings', () => {
  const asked = 'What is in the picture? The answer is:';
  const llava = [880, 425, 999, 438, 329, 277, 950, 689, 467, 494, 594, 190];
  const blip = [9, 9, 9, 463, 247, 247, 744, 669, 744, 669, 463, 463];
  const nested = (model: string): Record<string, ((fields: Fields) => Fields) | undefined> => ({
    'processor_config.json': () => ({
      image_processor: readFields(join(fixturesDir, model, 'preprocessor_config.json')),
      patch_size: null,
      processor_class: 'LlavaProcessor',
    }),
    'preprocessor_config.json': undefined,
  });

  test.each([
    ['tiny-llava', llava],
    ['tiny-blip2-opt', blip],
  ])('%s: inside processor_config.json', async (model, ids) => {
    expect(await answerIn(folder(model, nested(model)), 12, asked)).toEqual(ids);
  });

  test('the settings inside processor_config.json come before the other file; without them it is read', () => {
    const both = { ...nested('tiny-blip2-opt'), 'preprocessor_config.json': () => ({ size: 5 }) };
    expect(loadModel(folder('tiny-blip2-opt', both)).processor).toBeDefined();
    const old = { 'processor_config.json': () => ({ num_query_tokens: 8, image_processor: null }) };
    expect(loadModel(folder('tiny-blip2-opt', old)).processor).toBeDefined();
    const none = { 'preprocessor_config.json': undefined };
    expect(() => loadModel(folder('tiny-blip2-opt', none))).toThrow(
      /neither preprocessor_config\.json nor a processor_config\.json with/,
    );
  });

  test('nulls are not set, as fast processors write them', async () => {
    const nulls = ['crop_size', 'do_center_crop', 'device', 'do_pad', 'pad_size', 'resample', 'image_std', 'default_to_square'];
    const dir = folder('tiny-blip2-opt', {
      'preprocessor_config.json': (fields) => ({
        ...fields,
        ...Object.fromEntries(nulls.map((name) => [name, null])),
        image_processor_type: 'BlipImageProcessorFast',
      }),
      'config.json': (fields) => ({
        ...fields,
        image_token_index: null,
        text_config: { ...(fields.text_config as Fields), num_beams: null },
      }),
    });
    expect(await answerIn(dir, 12, asked)).toEqual(blip);
  });
});

/** Writes a fixture's tensors into one file by other names. */
function renamed(model: string, rename: (name: string) => string): string {
  const dir = folder(model);
  const source = openWeights(dir);
  const tensors = Object.fromEntries(source.names().map((name) => [rename(name), source.get(name)]));
  for (const name of readdirSync(dir)) if (/\.safetensors(\.index\.json)?$/.test(name)) rmSync(join(dir, name));
  writeSafetensors(join(dir, 'model.safetensors'), tensors);
  return dir;
}

const names: [string, string, (name: string) => string][] = [
  [
    'tiny-llava',
    '4.52.0 to 4.52.3',
    (name) =>
      name === 'language_model.lm_head.weight'
        ? 'lm_head.weight'
        : `model.${name.replace(/^language_model\.model\./, 'language_model.')}`,
  ],
  ['tiny-llava', '5.5', (name) => (name === 'language_model.lm_head.weight' ? name : `model.${name}`)],
  ['tiny-llava', '5.24, made from scratch', (name) => name.replace('vision_tower.vision_model.', 'vision_tower.')],
  [
    'tiny-blip2-opt',
    '5.5',
    (name) => name.replace(/LayerNorm\.weight$/, 'LayerNorm.gamma').replace(/LayerNorm\.bias$/, 'LayerNorm.beta'),
  ],
  ['tiny-blip2-opt', 'a state dict', (name) => `model.${name}`],
];

describe.skipIf(!hasFixtures)('names of weights', () => {
  test.each(names)('%s, %s: the same model by its hash', async (model, _, rename) => {
    const vlm = loadModel(renamed(model, rename));
    expect(vlm.fingerprint).toBe(loadModel(join(fixturesDir, model)).fingerprint);
  });

  test.each([
    ['tiny-llava', llavaLayout],
    ['tiny-blip2-opt', blip2Layout],
    ['mini-minigpt4', miniGpt4Layout],
  ] as const)('%s: the names that are read stay as they are', (model, { rename }) => {
    const dir = model === 'mini-minigpt4' ? join('models', model) : join(fixturesDir, model);
    for (const name of openWeights(dir).names()) expect(rename(name)).toBe(name);
  });

  test('one weight by two names', () => {
    const dir = renamed('tiny-llava', (name) => name);
    const path = join(dir, 'model.safetensors');
    const file = openSafetensors(path);
    const tensors = Object.fromEntries([...file.entries].map(([name, entry]) => [name, file.readTensor(entry)]));
    rmSync(path);
    writeSafetensors(path, { ...tensors, 'lm_head.weight': tensors['language_model.lm_head.weight']! });
    expect(() => loadModel(dir)).toThrow(/has both (language_model\.)?lm_head\.weight and .*, which are one weight/);
  });
});

/** Whether transformers 5.24 takes the embedding for a head, by what config.json says of the whole and of the decoder, and by what is stored. */
test.skipIf(!hasFixtures).each([
  [true, false, false, true],
  [undefined, true, false, true],
  [false, true, false, true],
  [true, true, true, false],
  [true, undefined, true, false],
])('tied embeddings: %s, %s, a head of its own: %s', (whole, text, head, tied) => {
  const dir = renamed('tiny-llava', (name) => name);
  const config = readFields(join(dir, 'config.json'));
  const decoder = { ...(config.text_config as Fields), tie_word_embeddings: text };
  writeFileSync(join(dir, 'config.json'), JSON.stringify({ ...config, tie_word_embeddings: whole, text_config: decoder }));
  if (!head) {
    const source = openWeights(dir);
    const kept = source.names().filter((name) => !name.includes('lm_head'));
    const tensors = Object.fromEntries(kept.map((name) => [name, source.get(name)]));
    rmSync(join(dir, 'model.safetensors'));
    writeSafetensors(join(dir, 'model.safetensors'), tensors);
  }
  const read = [...weightShapes(loadModel(dir).architecture).keys()];
  expect(read.includes('language_model.lm_head.weight')).toBe(!tied);
});

describe('what cannot be opened is said before anything is built', () => {
  const refusal = (config: unknown): string => {
    try {
      describeConfig('config.json', config as never);
    } catch (error) {
      return (error as Error).message;
    }
    return '';
  };
  test.each<[string, unknown, RegExp]>([
    ['a list', [], /is not the configuration of a model/],
    ['null', null, /is not the configuration of a model/],
    ['no kind', {}, /model_type undefined is not known; known: llava, blip-2, minigpt4[^;]*$/],
    ['a name that objects have', { model_type: 'constructor' }, /model_type "constructor" is not known/],
    ['another LLaVA', { model_type: 'llava_next' }, /"llava_next" is not known; .*nearest to it is LLaVA-OneVision \(llava-hf/],
    ['InstructBLIP', { model_type: 'instructblip' }, /nearest to it is BLIP2-OPT \(Salesforce/],
    [
      "the authors' LLaVA",
      { model_type: 'llava', mm_vision_tower: 'openai/clip-vit-large-patch14-336', hidden_size: 4096 },
      /layout of its authors' code .*llava-hf\/llava-1\.5-7b-hf.*convert_llava_weights_to_hf\.py/,
    ],
    ["the authors' LLaVA, later", { model_type: 'llava_llama' }, /layout of its authors' code/],
    [
      'LLaVA on Phi',
      { model_type: 'llava', text_config: { model_type: 'phi3' } },
      /text_config\.model_type: expected "llama" or "mistral" or "qwen2"/,
    ],
    [
      'LLaVA with the image encoder of Pixtral',
      { model_type: 'llava', vision_config: { model_type: 'pixtral' } },
      /vision_config\.model_type/,
    ],
    ['BLIP-2 on T5', { model_type: 'blip-2', use_decoder_only_language_model: false }, /use_decoder_only_language_model/],
    [
      'a projector without biases',
      { model_type: 'llava', multimodal_projector_bias: false },
      /multimodal_projector_bias: only true/,
    ],
    ['rounded weights', { model_type: 'llava', quantization_config: { quant_method: 'awq' } }, /quant_method "awq" is not known/],
  ])('%s', (_, config, message) => {
    expect(refusal(config)).toMatch(message);
  });

  test.skipIf(!hasFixtures)('more or far fewer layers than the weights have', () => {
    const layers = (part: string, count: number) => (config: Fields) => ({
      ...config,
      [part]: { ...(config[part] as Fields), num_hidden_layers: count },
    });
    const open = (model: string, part: string, count: number) => () =>
      loadModel(folder(model, { 'config.json': layers(part, count) }));
    expect(open('tiny-llava', 'text_config', 4)).toThrow(/text_config\.num_hidden_layers is 4, but the weights have 6 layers/);
    expect(open('tiny-llava', 'vision_config', 3)).toThrow(
      /vision_config\.num_hidden_layers is 3, but the weights have 4 layers/,
    );
    expect(open('tiny-blip2-opt', 'qformer_config', 2)).toThrow(/qformer_config\.num_hidden_layers is 2, but the weights have 4/);
    const started = performance.now();
    expect(open('tiny-llava', 'text_config', 1024)).toThrow(/text_config\.num_hidden_layers is 1024, but the weights have 6/);
    expect(performance.now() - started).toBeLessThan(1000);
    const vicuna = folder('tiny-minigpt4', { 'vicuna/config.json': (config) => ({ ...config, num_hidden_layers: 2 }) });
    expect(() => loadModel(vicuna)).toThrow(/text_config\.num_hidden_layers is 2, but the weights have/);
  });
});
