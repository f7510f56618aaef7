/** What is fuzzed: every reader of what strangers send. A target gives its seeds, and reads an input; whatever it throws is judged by judge.ts. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../src/files/package-root.ts';

export interface Target {
  seeds: readonly Uint8Array[];
  run(input: Uint8Array): unknown;
  /** that one input may take, where it is not a second */
  milliseconds?: number;
  close?(): unknown;
}

const text = (value: string | object): Uint8Array => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const jsonLines = (values: readonly object[]): Uint8Array => text(values.map((one) => `${JSON.stringify(one)}\n`).join(''));
const decode = (input: Uint8Array): string => Buffer.from(input).toString('utf8');
const mini = (name: string): Buffer => readFileSync(join(packageRoot, 'models/mini-llava', name));

const folders: string[] = [];
function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-fuzz-'));
  folders.push(folder);
  return folder;
}

/** Removes what the targets wrote. */
export function cleanUp(): void {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}

/** A reader of one file of that name, in a folder with others. */
function ofFile(
  name: string,
  seeds: readonly Uint8Array[],
  read: (path: string, folder: string) => unknown,
  others: Readonly<Record<string, Uint8Array>> = {},
): Target {
  const folder = scratch();
  const path = join(folder, name);
  for (const [other, content] of Object.entries(others)) writeFileSync(join(folder, other), content);
  return {
    seeds,
    run(input) {
      writeFileSync(path, input);
      return read(path, folder);
    },
  };
}

/** A JSON header with its length before it, and room for data. */
function framed(header: Uint8Array, data: number): Uint8Array {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, Buffer.alloc(data)]);
}

const tensor = (dtype: string, shape: number[], from: number, to: number): object => ({ dtype, shape, data_offsets: [from, to] });
const header = {
  __metadata__: { format: 'pt' },
  a: tensor('F32', [2], 0, 8),
  b: tensor('BF16', [2, 0], 8, 8),
  c: tensor('F4', [16], 8, 16),
};
const metadata = {
  format: 'visedit edit',
  version: '1',
  editor: 'ft-v',
  model: '{"name":"m","fingerprint":"f"}',
  settings: '{"layer":1}',
  request: '{"prompt":"p","target":"t"}',
};

/** A small tokenizer.json of every kind of step. */
const tokenizer = {
  added_tokens: [{ id: 0, content: '<s>', special: true }],
  normalizer: {
    type: 'Sequence',
    normalizers: [{ type: 'Lowercase' }, { type: 'Replace', pattern: { String: ' ' }, content: '_' }],
  },
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true },
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [0], tokens: ['<s>'] } },
  },
  decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Fuse' }] },
  model: {
    type: 'BPE',
    unk_token: '<s>',
    byte_fallback: true,
    vocab: { '<s>': 0, a: 1, b: 2, ab: 3, '<0x41>': 4 },
    merges: ['a b'],
  },
};

const record = {
  src: 'what is it?',
  rephrase: 'what is this?',
  alt: 'dog',
  image: 'a.png',
  image_rephrase: 'a.png',
  loc: 'who',
  loc_ans: 'me',
  m_loc: 'a.png',
  m_loc_q: 'where?',
  m_loc_a: 'there',
};

/** One line for each reader. */
export const targets = {
  async safetensors() {
    const { openSafetensors } = await import('../../src/files/safetensors.ts');
    return ofFile('a.safetensors', [framed(text(header), 16), framed(text('{}'), 0)], (path) => {
      const file = openSafetensors(path);
      for (const entry of file.entries.values()) file.readBytes(entry);
    });
  },
  async header() {
    const { openSafetensors } = await import('../../src/files/safetensors.ts');
    const target = ofFile('a.safetensors', [text(header), text('{}')], openSafetensors);
    return { ...target, run: (input) => target.run(framed(input, 16)) };
  },
  async 'edit-file'() {
    const { readEdit } = await import('../../src/editors/files.ts');
    const { editorNamed } = await import('../../src/editors/index.ts');
    const made = { __metadata__: metadata, a: tensor('F32', [2], 0, 8) };
    const target = ofFile('a.safetensors', [text(made)], async (path) => editorNamed(readEdit(path).editor));
    return { ...target, run: (input) => target.run(framed(input, 8)) };
  },
  async torch() {
    const { openTorch } = await import('../../src/files/torch-pickle.ts');
    const { archive, floats, op, pickle, torchFile } = await import('../../test/files/torch-files.ts');
    const tensors = { w: { storage: 'FloatStorage', shape: [2, 2], data: floats(1, 2, 3, 4), count: 4 } };
    const seeds = [torchFile(tensors), torchFile(tensors, 'model'), archive(pickle(op.dict({ a: op.int(1) })))];
    return ofFile('a.bin', seeds, (path) => {
      const file = openTorch(path);
      for (const entry of file.entries.values()) file.readTensor(entry);
    });
  },
  async pickle() {
    const { unpickle } = await import('../../src/files/pickle.ts');
    const { pickle, tensorOp } = await import('../../test/files/torch-files.ts');
    const allowed = {
      types: new Set(['torch.FloatStorage']),
      calls: new Set(['torch._utils._rebuild_tensor_v2']),
      dicts: new Set(['collections.OrderedDict']),
    };
    const one = tensorOp({ key: '0', shape: [2], count: 2 });
    return {
      seeds: [pickle(one), text('\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.')],
      run: (input) => unpickle(Buffer.from(input), 'it', allowed),
    };
  },
  async json() {
    const { parseJson } = await import('../../src/files/json.ts');
    const { strictJson } = await import('../../src/files/strict-json.ts');
    return {
      seeds: [text('{"a":[1,-2.5e3,true,null,"x\\u00e9\\n"],"b":{}}'), text('[[[]]]')],
      run(input) {
        const given = decode(input);
        parseJson(given, 'it');
        strictJson(given);
      },
    };
  },
  async yaml() {
    const { parseYaml } = await import('../../src/files/yaml.ts');
    return {
      seeds: [text('model:\n  a: &x [1, 2.5, "s"]\n  b: *x\n? k\n: |\n  text\n')],
      run: (input) => parseYaml(decode(input), 'it'),
    };
  },
  async config() {
    const { describeFolder } = await import('../../src/models/layouts.ts');
    const { modernShapes } = await import('../modern-shapes.ts');
    const seeds = ['mini-llava', 'mini-blip2-opt', 'mini-minigpt4'].map((name) =>
      readFileSync(join(packageRoot, 'models', name, 'config.json')),
    );
    const modern = Object.values(modernShapes).map((shape) => text(shape().config));
    return ofFile('config.json', [...seeds, ...modern], (_path, folder) => describeFolder(folder));
  },
  /** Processors of modern families, with a picture through each; small ones, which are fast. */
  async 'modern-processor'() {
    const modern = await import('../../src/input/image/modern.ts');
    const { readImageSettings } = await import('../../src/input/image/config.ts');
    const side = (size: number): object => ({ height: size, width: size });
    const seeds = [
      { image_processor_type: 'Qwen2VLImageProcessorFast', patch_size: 4, size: { shortest_edge: 64, longest_edge: 4096 } },
      { image_processor_type: 'Qwen2VLImageProcessor', patch_size: 4, merge_size: 2, min_pixels: 64, max_pixels: 1024 },
      { image_processor_type: 'SmolVLMImageProcessor', size: { longest_edge: 32 }, max_image_size: { longest_edge: 16 } },
      { image_processor_type: 'GotOcr2ImageProcessor', size: side(16), min_patches: 1, max_patches: 4, image_std: [1, 1, 1] },
      { image_processor_type: 'Gemma3ImageProcessor', size: side(16), resample: 2, do_rescale: true, rescale_factor: 0.5 },
      {
        image_processor_type: 'LlavaOnevisionImageProcessor',
        size: side(16),
        image_grid_pinpoints: [
          [16, 32],
          [32, 32],
        ],
      },
    ];
    const data = Uint8Array.from({ length: 3 * 40 * 30 }, (_, i) => i % 251);
    const picture = { width: 40, height: 30, data };
    const makers = [
      modern.qwenProcessor,
      (given: Parameters<typeof modern.qwenProcessor>[0]) => modern.smolVlmProcessor(given, 2),
      (given: Parameters<typeof modern.qwenProcessor>[0]) => modern.internVlProcessor(given, 2),
      (given: Parameters<typeof modern.qwenProcessor>[0]) => modern.gemmaProcessor(given, 2),
      (given: Parameters<typeof modern.qwenProcessor>[0]) => modern.oneVisionProcessor(given, 4, 4),
    ];
    const target = ofFile('preprocessor_config.json', seeds.map(text), (_path, folder) => {
      const settings = readImageSettings(folder);
      let refused: unknown;
      for (const make of makers) {
        let processor: ReturnType<typeof modern.qwenProcessor>;
        try {
          processor = make(settings);
        } catch (error) {
          if (error instanceof TypeError || error instanceof RangeError) throw error;
          refused = error;
          continue;
        }
        const processed = processor.process(picture);
        processed.pixels();
        processed.regionOf(processed.count - 1);
        return;
      }
      throw refused;
    });
    // Published settings make pictures of megapixels.
    return { ...target, milliseconds: 3000 };
  },
  async 'processor-config'() {
    const { readImageSettings } = await import('../../src/input/image/config.ts');
    const { readChatTemplate } = await import('../../src/input/chat/template.ts');
    const seed = {
      processor_class: 'SmolVLMProcessor',
      image_processor: { image_processor_type: 'SmolVLMImageProcessor', size: { longest_edge: 32 } },
      chat_template: [{ name: 'default', template: '{{ messages[0].content }}' }],
    };
    return ofFile('processor_config.json', [text(seed), text({ chat_template: { default: 'x' } })], (_path, folder) => {
      readChatTemplate(folder);
      readImageSettings(folder);
    });
  },
  async ledger() {
    const { Ledger, setId } = await import('../../src/ledger/ledger.ts');
    const { ledgerSeeds, seededEdit } = await import('./line-seeds.ts');
    const { scopeOf, lastCard } = await import('../../src/ledger/cards.ts');
    const limits = { edits: 20, editsPerSet: 10 };
    const read = (_path: string, folder: string): void => {
      const ledger = new Ledger(folder, limits, { readOnly: true });
      for (const set of ledger.sets) {
        for (const edit of ledger.active(set)) {
          const card = lastCard(edit);
          if (card !== null) scopeOf(card);
        }
        ledger.editorOf(set);
        ledger.beside(set.model, set.name, 'ft-l');
        ledger.set(setId(set));
      }
      for (const edit of ledger.edits) ledger.isEnabled(edit);
    };
    const target = ofFile('changes.jsonl', ledgerSeeds.map(jsonLines), read);
    // The edit that the seeds name.
    const folder = folders.at(-1)!;
    mkdirSync(join(folder, 'edits'));
    writeFileSync(
      join(folder, 'edits', `${seededEdit}.safetensors`),
      framed(text({ __metadata__: metadata, a: tensor('F32', [2], 0, 8) }), 8),
    );
    return target;
  },
  /** What workers send and processes append. */
  async results() {
    const { parseJsonLines } = await import('../../src/files/schema.ts');
    const { recordResult } = await import('../../src/evaluation/metrics.ts');
    const { batchSchema } = await import('../../apps/queue/batch.ts');
    const { batchSeed, resultSeed } = await import('./line-seeds.ts');
    return {
      seeds: [jsonLines([resultSeed]), jsonLines([batchSeed])],
      run(input: Uint8Array) {
        const given = decode(input);
        let refused: unknown;
        for (const schema of [recordResult, batchSchema])
          try {
            parseJsonLines(given, 'it', schema);
          } catch (error) {
            refused = error;
          }
        if (refused !== undefined) throw refused;
      },
    };
  },
  async processor() {
    const { readImageSettings } = await import('../../src/input/image/config.ts');
    return ofFile('preprocessor_config.json', [mini('preprocessor_config.json')], (_path, folder) => readImageSettings(folder));
  },
  async tokenizer() {
    const { loadTokenizer } = await import('../../src/input/text/tokenizer.ts');
    const wordPiece = { ...tokenizer, model: { type: 'WordPiece', unk_token: '<s>', vocab: { '<s>': 0, a: 1, '##b': 2 } } };
    const unigram = {
      ...tokenizer,
      model: {
        type: 'Unigram',
        unk_id: 0,
        vocab: [
          ['<s>', 0],
          ['a', -1],
          ['b', -2],
        ],
      },
    };
    return ofFile('tokenizer.json', [text(tokenizer), text(wordPiece), text(unigram)], (_path, folder) => {
      const made = loadTokenizer(folder);
      made.decode(made.encode('ab <s> é A'));
    });
  },
  async 'tokenizer-config'() {
    const { loadTokenizer } = await import('../../src/input/text/tokenizer.ts');
    const { readChatTemplate, specialTokens } = await import('../../src/input/chat/template.ts');
    const seeds = [mini('tokenizer_config.json'), text({ chat_template: '{{ messages[0].content }}' })];
    const read = (_path: string, folder: string): void => {
      const made = loadTokenizer(folder);
      made.decode(made.encode('ab <s> é A'));
      specialTokens(folder);
      readChatTemplate(folder);
    };
    return ofFile('tokenizer_config.json', seeds, read, { 'tokenizer.json': text(tokenizer) });
  },
  async sentencepiece() {
    const { openSentencePiece } = await import('../../src/input/text/sentencepiece.ts');
    return ofFile(
      'tokenizer.model',
      [Buffer.from('0a0e0a053c756e6b3e15000000001802', 'hex'), Buffer.from('0a0a0a01611500008080bf1801', 'hex')],
      (path) => {
        const model = openSentencePiece(path);
        model.decode(model.encode('ab é', { dummyPrefix: true }).map((id) => model.pieceOf(id) ?? ''));
      },
    );
  },
  async template() {
    const { renderTemplate } = await import('../../src/input/chat/jinja.ts');
    const seeds = [
      "{% for m in messages %}{{ m['role'] + ': ' + m.content }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
    ];
    return {
      seeds: seeds.map(text),
      run: (input) =>
        renderTemplate(
          { source: decode(input), origin: 'it', tokens: { bos_token: '<s>' } },
          [{ role: 'user', content: 'hi' }] as never,
          { timeLimit: 300 },
        ),
    };
  },
  async records() {
    const { loadRecords } = await import('../../src/input/records.ts');
    const seeds = [text([record]), text([{ ...record, pred: 'cat', kind: 'k', edit: 'correction' }])];
    return ofFile('records.json', seeds, loadRecords, { 'a.png': Buffer.alloc(0) });
  },
  async shards() {
    const { openCheckpoint } = await import('../../src/files/folder.ts');
    const shard = framed(text({ a: tensor('F32', [2], 0, 8) }), 8);
    const read = (_path: string, folder: string): unknown => openCheckpoint(folder);
    return ofFile('model.safetensors.index.json', [text({ weight_map: { a: 'm.safetensors' } })], read, {
      'm.safetensors': shard,
    });
  },
  async pulled() {
    const { pulledFolder, hubFolder } = await import('../../src/files/hub.ts');
    process.env.HOME = scratch();
    const folder = hubFolder('org/model');
    mkdirSync(folder, { recursive: true });
    const seed = { id: 'org/model', revision: 'main', complete: true, files: { 'config.json': { size: 1, etag: 'a' } } };
    return {
      seeds: [text(seed)],
      run(input) {
        writeFileSync(join(folder, '.visedit-pull.json'), input);
        pulledFolder('org/model');
      },
    };
  },
  async gif() {
    const { openGif } = await import('../../src/input/image/gif.ts');
    const seed = Buffer.from('47494638396101000100800000ff0000ffffff2c000000000100010000020144003b', 'hex');
    return {
      seeds: [seed],
      run(input) {
        const gif = openGif(input);
        if (gif.width * gif.height <= 1e6) gif.pixels();
      },
    };
  },
  requests: async () => (await import('./requests.ts')).requests(),
} satisfies Record<string, () => Promise<Target>>;

export type TargetName = keyof typeof targets;
