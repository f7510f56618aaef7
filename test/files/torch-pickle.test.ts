import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { writeSafetensors } from '../../src/files/safetensors.ts';
import { openWeights } from '../../src/files/torch-folder.ts';
import { isContiguous, openTorch } from '../../src/files/torch-pickle.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';
import { archive, floats, localHeader, op, pickle, tensorOp, torchFile, zip64End, zipOf } from './torch-files.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-torch-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const at = (name: string, bytes: Buffer): string => {
  writeFileSync(join(scratch, name), bytes);
  return join(scratch, name);
};
const hex = (text: string): Buffer => Buffer.from(text, 'hex');
const values = (path: string, name: string, under?: string): number[] => [
  ...openTorch(path, under).readTensor(name, { as: 'float32' }).data,
];

describe('tensors', () => {
  test('are found where they lie in the file, shared, sliced and transposed ones included', () => {
    const data = floats(0, 1, 2, 3, 4, 5);
    const one = (spec: object): Buffer => tensorOp({ key: '0', count: 6, shape: [2, 3], ...spec });
    const path = at(
      'shared.pth',
      archive(
        pickle(
          op.dict({
            whole: one({}),
            slice: one({ shape: [3], offset: 3 }),
            transposed: one({ shape: [3, 2], strides: [1, 3] }),
            column: one({ shape: [2, 1], strides: [3, 1], offset: 2 }),
            parameter: one({ parameter: true }),
            scalar: one({ shape: [], offset: 5 }),
            empty: one({ shape: [0, 3], offset: 6 }),
            oneRow: one({ shape: [1, 3], strides: [7, 1] }),
            epoch: op.int(3),
          }),
        ),
        { 0: data },
      ),
    );
    const file = openTorch(path);
    expect(file.names()).toEqual(['whole', 'slice', 'transposed', 'column', 'parameter', 'scalar', 'empty', 'oneRow']);
    expect(values(path, 'whole')).toEqual([0, 1, 2, 3, 4, 5]);
    expect(values(path, 'slice')).toEqual([3, 4, 5]);
    expect(values(path, 'transposed')).toEqual([0, 3, 1, 4, 2, 5]);
    expect(values(path, 'column')).toEqual([2, 5]);
    expect(values(path, 'parameter')).toEqual([0, 1, 2, 3, 4, 5]);
    expect(values(path, 'scalar')).toEqual([5]);
    expect(values(path, 'empty')).toEqual([]);
    expect(values(path, 'oneRow')).toEqual([0, 1, 2]);
    expect(file.names().filter((name) => !isContiguous(file.entry(name)))).toEqual(['transposed', 'column']);
    const { begin, bytes } = file.entry('slice');
    expect(readFileSync(path).subarray(begin, begin + bytes)).toEqual(data.subarray(12));
    expect(file.entry('whole').begin % 64).toBe(0);
    const part = file.readBytes(file.entry('transposed'), 4, 8);
    expect([...new Float32Array(part.buffer)]).toEqual([3, 1]);
  });

  test('of a state_dict with its version numbers, and of pickle protocol 4', () => {
    const versions = Buffer.concat([op.dict({ _metadata: op.emptyDict }), op.build]);
    const state = Buffer.concat([
      op.global('collections', 'OrderedDict'),
      op.emptyTuple,
      op.reduce,
      op.put(0),
      op.mark,
      op.text('a'),
      tensorOp({ key: '0', count: 2, shape: [2] }),
      Buffer.from('u'),
      versions,
    ]);
    expect(values(at('state.pth', archive(pickle(state), { 0: floats(7, 8) })), 'a')).toEqual([7, 8]);
    const frame = Buffer.concat([hex('95'), Buffer.alloc(8)]);
    const modern = Buffer.concat([
      op.proto(4),
      frame,
      op.emptyDict,
      hex('94'),
      op.shortText('x'),
      hex('94'),
      tensorOp({ key: '0', count: 2, shape: [2] }),
      Buffer.from('s'),
      op.stop,
    ]);
    expect(values(at('modern.pth', archive(modern, { 0: floats(7, 8) })), 'x')).toEqual([7, 8]);
  });

  test('under a key; a wrong key is answered with the keys there are', () => {
    const path = at(
      'under.pth',
      torchFile({ w: { storage: 'HalfStorage', shape: [2], count: 2, data: hex('003c0040') } }, 'model'),
    );
    expect(values(path, 'w', 'model')).toEqual([1, 2]);
    expect(() => openTorch(path)).toThrow(/under\.pth has no tensors at its top; at its top are "model", "epoch"/);
    expect(() => openTorch(path, 'weights')).toThrow(/no dictionary of tensors under "weights"; at its top are "model", "epoch"/);
  });

  test('beyond 4 GB (zip64, a sparse file)', () => {
    const path = join(scratch, 'large.pth');
    const bytes = 4.5e9;
    const parts = [
      {
        name: 'a/data.pkl',
        data: pickle(
          op.dict({
            big: tensorOp({ key: '0', count: bytes / 4, shape: [bytes / 4] }),
            small: tensorOp({ key: '1', count: 2, shape: [2] }),
          }),
        ),
      },
      { name: 'a/data/0', length: bytes },
      { name: 'a/data/1', data: floats(1, 2) },
    ];
    const fd = openSync(path, 'w');
    let offset = 0;
    const entries = parts.map(({ name, data, length }) => {
      const header = offset;
      const local = localHeader(name);
      writeSync(fd, local, 0, local.length, header);
      offset += local.length;
      if (data !== undefined) writeSync(fd, data, 0, data.length, offset);
      const size = length ?? data.length;
      offset += size;
      return { name, header, bytes: size };
    });
    const end = zip64End(entries, offset);
    writeSync(fd, end, 0, end.length, offset);
    closeSync(fd);
    const file = openTorch(path);
    expect(file.entry('big').bytes).toBe(bytes);
    expect(file.entry('small').begin).toBeGreaterThan(2 ** 32);
    expect(values(path, 'small')).toEqual([1, 2]);
    rmSync(path);
  });
});

describe('hostile pickles are refused by name and offset, and leave no trace', () => {
  const trace = join(scratch, 'trace');
  const command = `touch ${trace}`;
  const call = (callee: Buffer, ...args: Buffer[]): Buffer => Buffer.concat([callee, op.tuple(...args), op.reduce]);
  const hostile: [string, Buffer, RegExp][] = [
    ['os.system', call(op.global('os', 'system'), op.text(command)), /GLOBAL at offset 2: refused "os\.system"/],
    ['posix.system', call(op.global('posix', 'system'), op.text(command)), /GLOBAL at offset 2: refused "posix\.system"/],
    [
      'builtins.eval',
      call(op.global('builtins', 'eval'), op.text(`__import__("os").system("${command}")`)),
      /GLOBAL at offset 2: refused "builtins\.eval"/,
    ],
    [
      'builtins.exec by the stack',
      call(op.stackGlobal('builtins', 'exec'), op.text(command)),
      /STACK_GLOBAL at offset \d+: refused "builtins\.exec"/,
    ],
    ['nested torch.load', call(op.global('torch', 'load'), op.text('inner.pth')), /GLOBAL at offset 2: refused "torch\.load"/],
    ['nested pickle.loads', call(op.global('pickle', 'loads'), op.text('x')), /GLOBAL at offset 2: refused "pickle\.loads"/],
    ['a dotted name', call(op.global('torch', '_utils.os.system'), op.text(command)), /refused "torch\._utils\.os\.system"/],
    [
      'deep in a harmless dictionary',
      op.dict({ w: tensorOp({ key: '0', count: 1, shape: [1] }), x: call(op.global('subprocess', 'Popen'), op.text(command)) }),
      /GLOBAL at offset \d+: refused "subprocess\.Popen"/,
    ],
    [
      '__reduce__ of an instance',
      Buffer.concat([op.global('__main__', 'Evil'), op.emptyTuple, hex('81')]),
      /GLOBAL at offset 2: refused "__main__\.Evil"/,
    ],
    [
      'NEWOBJ of an allowed type',
      Buffer.concat([op.global('collections', 'OrderedDict'), op.emptyTuple, hex('81')]),
      /NEWOBJ at offset \d+: refused/,
    ],
    [
      'NEWOBJ_EX',
      Buffer.concat([op.global('collections', 'OrderedDict'), op.emptyTuple, op.emptyDict, hex('92')]),
      /NEWOBJ_EX at offset \d+: refused/,
    ],
    ['INST', Buffer.concat([op.mark, op.text(command), Buffer.from('ios\nsystem\n')]), /INST at offset \d+: refused/],
    ['OBJ', Buffer.concat([op.mark, op.global('collections', 'OrderedDict'), Buffer.from('o')]), /OBJ at offset \d+: refused/],
    ['EXT1', hex('8201'), /EXT1 at offset 2: refused/],
    ['a persistent id as text', Buffer.from('Pabc\n'), /PERSID at offset 2: refused/],
    ['a persistent id that is no storage', Buffer.concat([op.text('x'), op.persistent]), /BINPERSID at offset \d+: refused/],
    [
      'BUILD with __setstate__',
      Buffer.concat([op.global('torch', 'FloatStorage'), op.dict({ __setstate__: op.none }), op.build]),
      /BUILD at offset \d+: refused/,
    ],
    [
      'BUILD with attributes and slots',
      Buffer.concat([op.emptyDict, op.tuple(op.none, op.emptyDict), op.build]),
      /BUILD at offset \d+: refused/,
    ],
    ['a call of a text', call(op.text('os.system'), op.text(command)), /REDUCE at offset \d+: refused: only named constructors/],
    [
      'a call of a storage type',
      call(op.global('torch', 'FloatStorage'), op.int(1_000_000_000)),
      /REDUCE at offset \d+: refused: torch\.FloatStorage may be named, not called/,
    ],
    [
      'OrderedDict with arguments',
      call(op.global('collections', 'OrderedDict'), op.emptyList),
      /REDUCE at offset \d+: refused: collections\.OrderedDict with arguments/,
    ],
    [
      'items of something else',
      Buffer.concat([op.global('torch', 'FloatStorage'), op.text('a'), op.none, Buffer.from('s')]),
      /SETITEM at offset \d+: refused/,
    ],
    [
      'appending to something else',
      Buffer.concat([op.global('torch', 'FloatStorage'), op.none, op.append]),
      /APPEND at offset \d+: refused/,
    ],
    ['a long name', op.global('a'.repeat(5000), 'b'), /GLOBAL at offset 2: a name longer than 256/],
    ['bytes', Buffer.from('B\x01\x00\x00\x00x'), /BINBYTES at offset 2: refused/],
    ['a byte array', Buffer.concat([hex('96'), Buffer.alloc(8), hex('97')]), /BYTEARRAY8 at offset 2: refused/],
    ['a number as text', Buffer.from('I1\n'), /INT at offset 2: refused/],
    ['no opcode', hex('ff'), /opcode 0xff at offset 2: refused/],
  ];
  test.each(hostile)('%s', (_, ops, message) => {
    const path = at('hostile.pth', archive(pickle(ops), { 0: floats(1) }));
    expect(() => openTorch(path)).toThrow(message);
    expect(() => openTorch(path)).toThrow(/hostile\.pth: archive\/data\.pkl: /);
    expect(existsSync(trace)).toBe(false);
  });

  test('a tensor that hides a call in its arguments stays plain data', () => {
    const inner = tensorOp({ key: '0', count: 1, shape: [1] });
    const odd = Buffer.concat([op.global('torch._utils', '_rebuild_tensor_v2'), op.tuple(inner, inner, inner, inner), op.reduce]);
    expect(() => openTorch(at('odd.pth', archive(pickle(op.dict({ w: odd })), { 0: floats(1) })))).toThrow(
      /tensor "w": it is not described as torch does/,
    );
  });
});

describe('limits', () => {
  const refused = (ops: Buffer, message: RegExp): void => {
    const start = Date.now();
    expect(() => openTorch(at('limit.pth', archive(ops)))).toThrow(message);
    expect(Date.now() - start).toBeLessThan(5000);
  };
  const many = (n: number, make: (i: number) => Buffer): Buffer => Buffer.concat(Array.from({ length: n }, (_, i) => make(i)));

  test('texts, stack, marks, memo, protocol', () => {
    refused(
      Buffer.concat([op.proto(), Buffer.from('X'), hex('ffffffff')]),
      /BINUNICODE at offset 2: a text of 4294967295 bytes, at most 65536/,
    );
    refused(pickle(op.text('x'.repeat(70_000))), /BINUNICODE at offset 2: a text of 70000 bytes/);
    refused(pickle(Buffer.alloc(200_000, ']')), /EMPTY_LIST at offset 100002: more than 100000 values are open/);
    refused(pickle(Buffer.alloc(300, '(')), /MARK at offset 258: nested deeper than 256/);
    refused(pickle(op.none, many(1_000_001, op.put)), /LONG_BINPUT at offset \d+: more than 1000000 remembered values/);
    refused(Buffer.concat([op.proto(9), op.stop]), /PROTO at offset 0: protocol 9/);
    refused(pickle(op.get(5)), /LONG_BINGET at offset 2: nothing was remembered as 5/);
    refused(pickle(), /STOP at offset 2: there is no value/);
    refused(pickle(op.mark, Buffer.from('a')), /APPEND at offset 3: there is no value/);
    refused(pickle(Buffer.from('t')), /TUPLE at offset 2: there is no mark/);
    refused(pickle(op.none, op.none), /STOP at offset 4: values are left over/);
    refused(Buffer.concat([pickle(op.emptyDict), pickle(op.none)]), /STOP at offset 3: 4 bytes follow the end/);
    refused(Buffer.concat([op.proto(), op.emptyDict]), /end of the file at offset 3: 1 bytes are needed, 0 are left/);
    refused(pickle(op.emptyDict, op.mark, op.text('a'), Buffer.from('u')), /SETITEMS at offset \d+: a key has no value/);
  });

  test('lists that hold themselves or each other many times cost nothing', () => {
    const laughs = Buffer.concat([
      op.emptyList,
      op.put(0),
      ...Array.from({ length: 5000 }, (_, i) =>
        Buffer.concat([op.emptyList, op.put(i + 1), op.mark, op.get(i), op.get(i), Buffer.from('e')]),
      ),
    ]);
    const path = at(
      'laughs.pth',
      archive(
        pickle(
          op.dict({ w: tensorOp({ key: '0', count: 1, shape: [1] }), x: Buffer.concat([op.mark, laughs, Buffer.from('t')]) }),
        ),
        { 0: floats(4) },
      ),
    );
    expect(values(path, 'w')).toEqual([4]);
    const cycle = Buffer.concat([
      op.emptyDict,
      op.put(0),
      op.text('self'),
      op.get(0),
      Buffer.from('s'),
      op.text('w'),
      tensorOp({ key: '0', count: 1, shape: [1] }),
      Buffer.from('s'),
    ]);
    expect(values(at('cycle.pth', archive(pickle(cycle), { 0: floats(4) })), 'w')).toEqual([4]);
  });

  test('tensors that do not fit their storage', () => {
    const one = (spec: object, message: RegExp): void => {
      const w = tensorOp({ key: '0', count: 4, shape: [4], ...spec });
      expect(() => openTorch(at('tensor.pth', archive(pickle(op.dict({ w })), { 0: floats(1, 2, 3, 4) })))).toThrow(message);
    };
    one({ shape: [5] }, /tensor "w": \[5\] has more elements than its storage \(4\)/);
    one({ shape: [1_000_000_000], strides: [0] }, /has more elements than its storage/);
    one({ offset: 1 }, /it reaches element 4, its storage has 4/);
    one({ shape: [2], strides: [1_000_000_000] }, /it reaches element 1000000000/);
    one({ shape: [2 ** 31 - 1, 2 ** 31 - 1, 2 ** 31 - 1], strides: [1, 1, 1] }, /has more elements/);
    one({ shape: new Array(17).fill(1) }, /must be whole numbers/);
    one({ count: 5 }, /5 elements of F32 take 20 bytes, its data has 16/);
    one({ storage: 'DoubleStorage' }, /4 elements of F64 take 32 bytes, its data has 16/);
    one({ key: '../../etc/passwd' }, /its data "archive\/data\/\.\.\/\.\.\/etc\/passwd" is missing/);
    const negative = Buffer.from(tensorOp({ key: '0', count: 4, shape: [4] }));
    negative.writeInt32LE(-4, negative.lastIndexOf(Buffer.from([0x4a, 4, 0, 0, 0])) + 1);
    expect(() => openTorch(at('negative.pth', archive(pickle(op.dict({ w: negative })), { 0: floats(1, 2, 3, 4) })))).toThrow(
      /must be whole numbers/,
    );
  });

  test('damaged copies give an error that names the file, or are read', () => {
    const good = archive(pickle(op.dict({ w: tensorOp({ key: '0', count: 2, shape: [2] }), n: op.int(5) })), { 0: floats(1, 2) });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.option(fc.nat(good.length)),
        (edits, cut) => {
          const copy = Buffer.from(good);
          for (const [i, byte] of edits) copy[i] = byte;
          const path = at('fuzzed.pth', cut === null ? copy : copy.subarray(0, cut));
          try {
            openTorch(path).readTensor('w');
          } catch (error) {
            expect((error as Error).message).toContain(path);
            expect((error as Error).constructor).toBe(Error);
          }
        },
      ),
      { numRuns: 500, seed: 7 },
    );
  });
});

describe('archives and other formats', () => {
  const body = pickle(op.dict({ w: tensorOp({ key: '0', count: 1, shape: [1] }) }));
  const parts = [
    { name: 'archive/data.pkl', data: body },
    { name: 'archive/data/0', data: floats(1) },
  ];
  const refused = (bytes: Buffer, message: RegExp): void => expect(() => openTorch(at('archive.pth', bytes))).toThrow(message);

  test('damaged, compressed, encrypted and lying archives', () => {
    const good = zipOf(parts);
    expect(values(at('archive.pth', good), 'w')).toEqual([1]);
    refused(good.subarray(0, good.length - 5), /damaged or cut off.*the record at its end is missing/);
    refused(Buffer.concat([good, Buffer.from('tail')]), /the record at its end is missing/);
    refused(zipOf([parts[0]!, { ...parts[1]!, method: 8 }]), /"archive\/data\/0" is compressed \(method 8\)/);
    refused(zipOf([{ ...parts[0]!, method: 8 }, parts[1]!]), /"archive\/data\.pkl" is compressed/);
    refused(zipOf([parts[0]!, { ...parts[1]!, flags: 1 }]), /"archive\/data\/0" is encrypted/);
    refused(zipOf([parts[0]!, { ...parts[1]!, size: 1_000_000 }]), /ends at offset \d+, after the \d+ bytes before/);
    refused(zipOf([parts[0]!, { ...parts[1]!, localName: 'archive/data/1' }]), /is called "archive\/data\/1" in its header/);
    refused(zipOf([parts[0]!, { ...parts[1]!, header: 5 }]), /has no header at offset 5/);
    refused(zipOf([parts[0]!, parts[1]!, parts[1]!]), /the entry "archive\/data\/0" occurs twice/);
    refused(
      zipOf([parts[0]!, parts[1]!, { name: 'archive/data/0', localName: 'archive/data/0', data: floats(1), header: 0 }]),
      /is damaged/,
    );
    const sharing = zipOf([
      parts[0]!,
      parts[1]!,
      { name: 'archive/data/1', localName: 'archive/data/0', data: floats(1), header: 0 },
    ]);
    refused(sharing, /is damaged/);
    refused(zipOf([parts[0]!]), /tensor "w": its data "archive\/data\/0" is missing/);
    refused(zipOf([{ name: 'readme.txt', data: Buffer.from('x') }]), /is a zip archive, but not a torch file: 0 entries/);
    refused(zipOf([...parts, { name: 'archive/byteorder', data: Buffer.from('big') }]), /big-endian/);
    refused(zipOf([...parts, { name: 'archive/constants.pkl', data: body }]), /is a TorchScript program/);
    refused(archive(pickle(op.emptyList)), /does not hold a dictionary of tensors/);
  });

  test('what is no zip archive is named', () => {
    refused(hex('80028a0a6cfc9c46f9206aa850192e80024de9032e'), /is in torch's legacy format.*torch\.save/);
    refused(body, /is a bare Python pickle/);
    refused(Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'), /is a Git LFS pointer/);
    refused(Buffer.from('<!DOCTYPE html><html>'), /is a web page/);
    refused(Buffer.alloc(0), /is empty/);
    refused(Buffer.from('PK'), /is not a torch file/);
    refused(Buffer.from('some text that is long enough'), /is not a torch file/);
    expect(() => openTorch(join(scratch, 'none.pth'))).toThrow(/none\.pth does not exist/);
    expect(() => openTorch(scratch)).toThrow(/is not a file/);
  });

  test('a file that changed after it was opened is not read', () => {
    const path = at('changing.pth', zipOf(parts));
    const file = openTorch(path);
    writeFileSync(path, Buffer.concat([zipOf(parts), Buffer.alloc(1)]));
    expect(() => file.readTensor('w')).toThrow(/was changed after it was opened/);
  });
});

describe('folders', () => {
  const tensor = (x: number) => ({ storage: 'FloatStorage', shape: [1], count: 1, data: floats(x) });
  const folder = (name: string, files: Record<string, Buffer | object>): string => {
    const dir = join(scratch, name);
    mkdirSync(dir, { recursive: true });
    for (const [file, content] of Object.entries(files))
      writeFileSync(join(dir, file), Buffer.isBuffer(content) ? content : JSON.stringify(content));
    return dir;
  };

  test('one file, shards, and safetensors before either', () => {
    const single = folder('single', { 'pytorch_model.bin': torchFile({ a: tensor(1) }) });
    expect([...openWeights(single).get('a', [1]).data]).toEqual([1]);
    const shards = {
      'one.bin': torchFile({ a: tensor(1) }),
      'two.bin': torchFile({ b: tensor(2) }),
      'pytorch_model.bin.index.json': { weight_map: { a: 'one.bin', b: 'two.bin' } },
    };
    const sharded = openWeights(folder('sharded', shards));
    expect([...sharded.get('b').data]).toEqual([2]);
    expect(sharded.fingerprint()).toMatch(/^[0-9a-f]{64}$/);
    writeSafetensors(join(single, 'model.safetensors'), { a: { dtype: 'float32', shape: [1], data: Float32Array.of(9) } });
    expect([...openWeights(single).get('a').data]).toEqual([9]);
    expect(() => openWeights(folder('empty', {}))).toThrow(/has neither model\.safetensors/);
    const index = (weight_map: object) => ({ ...shards, 'pytorch_model.bin.index.json': { weight_map } });
    expect(() => openWeights(folder('outside', index({ a: '../single/pytorch_model.bin' })))).toThrow(
      /must be the name of a file in the same folder/,
    );
    expect(() => openWeights(folder('lacking', index({ a: 'three.bin' })))).toThrow(/lacks the shard three\.bin/);
    expect(() => openWeights(folder('absent', index({ c: 'one.bin' })))).toThrow(/lists c, but one\.bin does not hold it/);
  });

  test.skipIf(!hasFixtures)('the published files of MiniGPT-4', () => {
    const dir = join(fixturesDir, 'tiny-minigpt4');
    expect(openTorch(join(dir, 'eva_vit_g.pth')).entry('pos_embed').dtype).toBe('F16');
    const qFormer = openTorch(join(dir, 'blip2_pretrained.pth'), 'model');
    expect(qFormer.has('query_tokens') && qFormer.has('ln_vision.weight')).toBe(true);
    expect(openTorch(join(dir, 'pretrained_minigpt4.pth'), 'model').names()).toEqual(['llama_proj.weight', 'llama_proj.bias']);
    expect(openWeights(join(dir, 'vicuna')).has('model.embed_tokens.weight')).toBe(true);
  });
});
