/** Folders of modern families that do not fit together, pictures and conversations that cannot be read: each is named, and nothing is answered. */
import { chmodSync, cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, describe, expect, test } from 'vitest';
import { decodeImage } from '../../src/input/image/decode.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { barePrompt, conversation } from '../../src/models/chat.ts';
import { families } from '../../src/models/families.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { sharedDir } from '../shared.ts';
import { temporaryFolder } from '../tiny-world.ts';

type Json = { [key: string]: unknown };

const modern = join(sharedDir, 'fixtures-modern');
const known = Object.keys(families).filter((family) => !['llava', 'blip-2', 'minigpt4', 'idefics3'].includes(family));

const dir = temporaryFolder();
const opened: Vlm[] = [];
afterAll(async () => {
  for (const vlm of opened) await vlm.release();
  rmSync(dir, { recursive: true });
});

let copies = 0;
/** A copy of a family's folder whose files are changed. */
function copy(family: string, files: Readonly<Record<string, ((json: Json) => unknown) | string>> = {}): string {
  const out = join(dir, `${family}-${copies++}`);
  cpSync(join(modern, `tiny-${family}`), out, { recursive: true });
  for (const file of readdirSync(out)) chmodSync(join(out, file), 0o644);
  for (const [file, change] of Object.entries(files)) {
    const path = join(out, file);
    if (typeof change === 'string') {
      writeFileSync(path, change);
      continue;
    }
    const json = JSON.parse(readFileSync(path, 'utf8')) as Json;
    writeFileSync(path, JSON.stringify(change(json) ?? json));
  }
  return out;
}

const open = (folder: string): Vlm => {
  const vlm = loadModel(folder, { threads: 1 });
  opened.push(vlm);
  return vlm;
};
const plain = (width: number, height: number): RgbImage => ({ width, height, data: new Uint8Array(3 * width * height).fill(90) });
const user = (text: string, ...pictures: RgbImage[]) => [
  { role: 'user', content: [...pictures.map((picture) => ({ picture })), { text }] },
];

/** The words that stand for pictures, and the processors' sizes that the image encoder reads. */
const marks: Readonly<Record<string, readonly string[]>> = {
  smolvlm: ['<image>', '<fake_token_around_image>', '<global-img>'],
  internvl: ['<IMG_CONTEXT>', '<img>', '</img>'],
  gemma3: ['<image_soft_token>', '<start_of_image>', '<end_of_image>'],
  llava_onevision: ['<image>'],
  qwen2_5_vl: ['<|image_pad|>', '<|vision_start|>'],
  qwen3_vl: ['<|image_pad|>', '<|vision_start|>'],
};
const otherSizes: Readonly<Record<string, readonly Json[]>> = {
  smolvlm: [{ max_image_size: { longest_edge: 48 } }],
  internvl: [{ size: { height: 48, width: 48 } }, { size: { height: 32, width: 48 } }],
  gemma3: [{ size: { height: 32, width: 32 } }],
  llava_onevision: [{ size: { height: 16, width: 16 } }, { image_grid_pinpoints: [[32, 40]] }],
  qwen2_5_vl: [{ patch_size: 16 }, { merge_size: 1 }, { temporal_patch_size: 1 }],
  qwen3_vl: [{ patch_size: 16 }, { merge_size: 4 }, { temporal_patch_size: 1 }],
};
const inProcessor =
  (change: Json) =>
  (json: Json): void => {
    Object.assign(json.image_processor as Json, change);
  };
const textConfig = (json: Json): Json => json.text_config as Json;

test.each([
  ['qwen2_vl', /nearest to it is Qwen2\.5-VL .*LayerNorm and without windows/],
  ['qwen3_5', /nearest to it is Qwen3-VL .*linear attention/],
  ['qwen3_vl_moe', /nearest to it is Qwen3-VL .*experts/],
  ['gemma4', /nearest to it is Gemma 3 /],
  ['gemma3_text', /nearest to it is Gemma 3 .*model of texts/],
  ['idefics2', /nearest to it is SmolVLM2 .*resampler/],
  ['internvl_chat', /nearest to it is InternVL3 in the layout of transformers/],
  ['an_unheard_of_model', /docs\/extending\/model\.md/],
])('a folder of %s says what is nearest and what it would need', (model_type, message) => {
  const folder = copy('smolvlm', { 'config.json': (json) => ({ ...json, model_type }) });
  expect(() => loadModel(folder)).toThrow(message);
  expect(() => loadModel(folder)).toThrow(/config\.json: model_type .* is not known; known: llava, /);
});

describe.each(known)('%s', (family) => {
  test('a processor of another model', () => {
    for (const image_processor_type of ['CLIPImageProcessor', 'PixtralImageProcessor']) {
      const folder = copy(family, { 'processor_config.json': inProcessor({ image_processor_type }) });
      expect(() => loadModel(folder)).toThrow(
        /processor_config\.json.*image_processor_type: only \w+ImageProcessor is supported/s,
      );
    }
  });

  test('a processor whose pictures do not fit the image encoder', () => {
    for (const change of otherSizes[family]!) {
      const folder = copy(family, { 'processor_config.json': inProcessor(change) });
      expect(() => loadModel(folder), JSON.stringify(change)).toThrow(/processor_config\.json/);
    }
  });

  test('a tokenizer without the words that stand for pictures', () => {
    for (const mark of marks[family]!) {
      const folder = copy(family, {
        'tokenizer.json': (json) => {
          json.added_tokens = (json.added_tokens as { content: string }[]).filter(({ content }) => content !== mark);
          delete (json.model as { vocab: Json }).vocab[mark];
        },
      });
      expect(() => loadModel(folder), mark).toThrow(/has no token .*, which the model needs; use the tokenizer files/);
    }
  });

  test('positions of a kind that is not computed', () => {
    const kinds: [Json, RegExp][] = [
      [{ rope_type: 'su' }, /rope_type: expected default, linear/],
      [{ rope_type: 'default', partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    ];
    for (const [rope, message] of kinds) {
      const folder = copy(family, {
        'config.json': (json) => {
          const given = textConfig(json).rope_parameters as Json;
          const byLayer = given.full_attention as Json | undefined;
          if (byLayer === undefined) Object.assign(given, rope);
          else Object.assign(byLayer, rope);
        },
      });
      expect(() => loadModel(folder), JSON.stringify(rope)).toThrow(message);
    }
  });

  test('a chat template that loops, throws, or loses pictures', () => {
    const cases: [string, RegExp][] = [
      ['{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}{# image #}', /chat_template\.jinja/],
      ["{{ raise_exception('Roles must alternate') }}{# image #}", /chat_template\.jinja.*Roles must alternate/s],
      ['{{ messages[0].content[0].nothing.at.all }}{# image #}', /chat_template\.jinja/],
      ['no picture here {# image #}', /the messages have 1 picture, but .*chat_template\.jinja writes .* 0 times/],
    ];
    for (const [template, message] of cases) {
      const vlm = open(copy(family, { 'chat_template.jinja': template }));
      expect(() => conversation(vlm, user('What is this?', plain(40, 30))), template).toThrow(message);
    }
  });

  test('more pictures than places for them, and the reverse', () => {
    const vlm = open(copy(family));
    const word = vlm.architecture.placeholder!(vlm.codec);
    const [a, b] = [plain(40, 30), plain(30, 40)];
    expect(() => vlm.layout({ prompt: `${word} and ${word}?`, image: a })).toThrow(/2 times and one picture/);
    expect(() => vlm.layout({ prompt: `${word}?` })).toThrow(/no image was given/);
    expect(() => barePrompt(vlm, `${word}?`, [a, b])).toThrow(/1 times and 2 pictures/);
    expect(() => conversation(vlm, user(`${word} what is this?`, a))).toThrow(/has .* in its text, which stands for a picture/);
    expect(() => vlm.layout({ prompt: [{ text: `${word} is in the text` }] })).toThrow(/give the picture itself/);
  });

  test('pictures that no processor takes', async () => {
    const vlm = open(copy(family));
    for (const [width, height] of [
      [0, 5],
      [5, 0],
    ] as const)
      expect(() => vlm.layout({ prompt: 'What?', image: plain(width, height) })).toThrow(
        new RegExp(`the picture is ${width} by ${height} pixels`),
      );
    const short = { ...plain(20, 20), data: new Uint8Array(7) };
    expect(() => vlm.layout({ prompt: 'What?', image: short })).toThrow(/20 by 20 pixels.*1200 bytes.*7/);
    for (const [width, height] of [
      [1, 10_000],
      [10_000, 1],
    ] as const) {
      // Either the published processor takes it, and all its tokens are there, or it says that it does not.
      const ask = () => vlm.layout({ prompt: 'What?', image: plain(width, height) });
      if (family.startsWith('qwen')) expect(ask).toThrow(/at most 200 to 1/);
      else {
        const { pictures, spans } = ask();
        const runs = spans[0]!.reduce((sum, [start, end]) => sum + end - start, 0);
        expect(runs).toBe(pictures[0]!.count);
        expect((await pictures[0]!.see()).data.every(Number.isFinite)).toBe(true);
      }
    }
  });
});

test('a picture of 20,000 by 20,000 pixels is not decoded', async () => {
  const file = join(dir, 'large.png');
  const small = await sharp({ create: { width: 2, height: 2, channels: 3, background: '#888' } })
    .png()
    .toBuffer();
  // the head of a PNG, with its sum: the size is known before any pixel is
  small.writeUInt32BE(20_000, 16);
  small.writeUInt32BE(20_000, 20);
  small.writeUInt32BE(crc32(small.subarray(12, 29)), 29);
  writeFileSync(file, small);
  await expect(decodeImage(file)).rejects.toThrow(
    /large\.png is 20000 by 20000 pixels, more than the 64000000 allowed; make it smaller/,
  );
});
