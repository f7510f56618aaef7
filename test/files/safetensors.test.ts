import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import type { DType, Tensor } from '../../src/graph/dtype.ts';
import { bytesPerElement, f32, i64, sizeOf } from '../../src/graph/dtype.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-safetensors-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, 'a.safetensors');

const arrays = {
  float32: Float32Array,
  float16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};

const anyTensor: fc.Arbitrary<Tensor> = fc
  .tuple(
    fc.constantFrom(...(Object.keys(arrays) as DType[])),
    fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
    fc.infiniteStream(fc.integer({ min: 0, max: 255 })),
  )
  .map(([dtype, shape, stream]) => {
    const bytes = new Uint8Array(sizeOf(shape) * bytesPerElement[dtype]);
    for (let i = 0; i < bytes.length; i++) bytes[i] = stream.next().value & (dtype === 'bool' ? 1 : 255);
    return { dtype, shape, data: new arrays[dtype](bytes.buffer) } as Tensor;
  });

const bytesOf = (t: Tensor) => Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength).toString('hex');

test('what is written is read back bit for bit', () => {
  const names = fc.string({ unit: 'grapheme', maxLength: 12 }).filter((name) => name !== '__metadata__');
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.tuple(names, anyTensor), { selector: ([name]) => name, maxLength: 6 }),
      fc.dictionary(fc.string(), fc.string()),
      (list, meta) => {
        writeSafetensors(file, new Map(list), meta);
        const opened = openSafetensors(file);
        expect(Object.entries(opened.metadata).sort()).toEqual(Object.entries(meta).sort());
        expect(opened.names().sort()).toEqual(list.map(([name]) => name).sort());
        for (const [name, tensor] of list) {
          const read = opened.readTensor(name);
          expect([read.dtype, read.shape, bytesOf(read)]).toEqual([tensor.dtype, tensor.shape, bytesOf(tensor)]);
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('equal content gives equal bytes, and tensors are aligned', () => {
  const a = f32([1, 2, 3], [3]);
  const b = i64([7], [1]);
  const c: Tensor = { dtype: 'bool', shape: [1], data: Uint8Array.of(1) };
  writeSafetensors(file, { a, b, c }, { z: '1', y: '2' });
  const first = readFileSync(file);
  writeSafetensors(file, { c, b, a }, { y: '2', z: '1' });
  expect(readFileSync(file).equals(first)).toBe(true);
  for (const entry of openSafetensors(file).entries.values()) expect(entry.begin % (entry.bytes / sizeOf(entry.shape))).toBe(0);
});

/** A file made from raw parts. */
function raw(header: string | Buffer, data: number, length?: bigint): string {
  const json = Buffer.isBuffer(header) ? header : Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(json.length));
  writeFileSync(file, Buffer.concat([prefix, json, Buffer.alloc(data)]));
  return file;
}

const t = (offsets: string, shape = '[2]', dtype = 'F32') => `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;

test.each<[string, string | Buffer, number, RegExp]>([
  ['overlap', `{"a":${t('[0,8]')},"b":${t('[4,12]')}}`, 12, /a\.safetensors.*tensor b at offset 4 overlaps/],
  ['same place twice', `{"a":${t('[0,8]')},"b":${t('[0,8]')}}`, 8, /tensor b at offset 0 overlaps/],
  ['hole', `{"a":${t('[0,8]')},"b":${t('[12,20]')}}`, 20, /tensor b at offset 12 leaves a hole/],
  ['hole at the start', `{"a":${t('[4,12]')}}`, 12, /tensor a at offset 4 leaves a hole/],
  ['bytes after the end', `{"a":${t('[0,8]')}}`, 9, /1 bytes after the last tensor/],
  ['data cut off', `{"a":${t('[0,8]')}}`, 7, /cut off.*tensor a is the last/],
  ['backwards', `{"a":${t('[8,0]')}}`, 8, /tensor a: it starts at offset 8, after its end 0/],
  ['wrong size', `{"a":${t('[0,8]', '[3]')}}`, 8, /tensor a: shape \[3\] of F32 takes 12 bytes, but offsets 0\.\.8 hold 8/],
  ['overflow', `{"a":${t('[0,8]', '[4294967296,4294967296,4294967296]')}}`, 8, /tensor a.*too large/],
  ['negative shape', `{"a":${t('[0,8]', '[-2]')}}`, 8, /shape \[-2\]/],
  ['fractional offset', `{"a":${t('[0.5,8.5]')}}`, 8, /data_offsets \[0.5, 8.5\]/],
  ['three offsets', `{"a":${t('[0,4,8]')}}`, 8, /data_offsets/],
  ['unknown dtype', `{"a":${t('[0,8]', '[2]', 'Q4')}}`, 8, /unknown dtype "Q4"/],
  ['dtype from the prototype', `{"a":${t('[0,8]', '[2]', 'toString')}}`, 8, /unknown dtype/],
  ['duplicate tensor', `{"a":${t('[0,8]')},"a":${t('[0,8]')}}`, 8, /"a" occurs twice/],
  ['duplicate tensor, escaped', `{"a":${t('[0,8]')},"\\u0061":${t('[0,8]')}}`, 8, /"a" occurs twice/],
  ['duplicate field', '{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8, /"dtype" occurs twice/],
  ['not an object', '[1]', 0, /an object of tensors is needed/],
  ['not JSON', '{"a":', 0, /not JSON/],
  ['not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), 0, /not UTF-8/],
  ['metadata of numbers', '{"__metadata__":{"a":1}}', 0, /__metadata__ "a" must be a text/],
  ['null entry', '{"a":null}', 0, /tensor a: an object/],
])('refused: %s', (_name, header, data, message) => {
  expect(() => openSafetensors(raw(header, data))).toThrow(message);
});

/**
 * Headers with that many bytes of data behind them, and what safe_open of the reference library (safetensors 0.8.0 for Python) says of each. There is
 * one file for every kind of fault. The others were chosen from 20,000 generated files, so that each message of the reference occurs several times.
 */
const verdicts = JSON.parse(readFileSync(new URL('./safetensors-verdicts.json', import.meta.url), 'utf8')) as {
  name?: string;
  header: string;
  data: number;
  accepted: boolean;
}[];

test('the verdict is the reference library’s, but for keys that occur twice', () => {
  expect(verdicts.length).toBeGreaterThan(300);
  const wrong = verdicts.flatMap(({ name, header, data, accepted }) => {
    let refused: string | undefined;
    try {
      openSafetensors(raw(header, data));
    } catch (error) {
      expect((error as Error).name).toBe('Error');
      refused = (error as Error).message;
    }
    if ((refused === undefined) === accepted || refused?.includes('occurs twice')) return [];
    return [{ name, header, accepted, refused }];
  });
  expect(wrong).toEqual([]);
});

test('element types that are not computed block only the tensor that has them', () => {
  const opened = openSafetensors(
    raw(`{"a":${t('[0,8]')},"b":${t('[8,10]', '[4]', 'F4')},"c":${t('[10,12]', '[2]', 'F8_E8M0')}}`, 12),
  );
  expect(opened.readTensor('a').shape).toEqual([2]);
  expect(() => opened.readTensor('b')).toThrow(/a\.safetensors: b has element type F4, which cannot be read here/);
  expect(() => opened.readTensor('c')).toThrow(/c has element type F8_E8M0/);
});

test('a header length beyond the limit or the file is refused before anything is allocated', () => {
  expect(() => openSafetensors(raw('{}', 0, 2n ** 63n))).toThrow(/header of 9223372036854775808 bytes, at most/);
  expect(() => openSafetensors(raw('{}', 0, 100_000_001n))).toThrow(/at most 100000000/);
  expect(() => openSafetensors(raw('{}', 0, 99_999_999n))).toThrow(/cut off/);
});

test('padding, empty files, scalars and empty tensors are accepted', () => {
  expect(openSafetensors(raw('{}      ', 0)).names()).toEqual([]);
  const opened = openSafetensors(raw(`{"s":${t('[0,4]', '[]')},"e":${t('[0,0]', '[0,5]')},"__metadata__":{"k":"v"}}`, 4));
  expect(opened.readTensor('s').shape).toEqual([]);
  expect(opened.readTensor('e').data.length).toBe(0);
  expect(opened.metadata).toEqual({ k: 'v' });
});

test('a file cut off anywhere is refused with its name', () => {
  writeSafetensors(file, { a: f32([1, 2, 3], [3]), b: i64([1, 2], [2]) }, { note: 'x' });
  const whole = readFileSync(file);
  for (let length = 0; length < whole.length; length++) {
    writeFileSync(file, whole.subarray(0, length));
    expect(() => openSafetensors(file), `cut at ${length}`).toThrow(file);
  }
});

test('a damaged header byte never crashes: it is refused, or the tensors stay inside the file', () => {
  writeSafetensors(file, { a: f32([1, 2, 3], [3]), b: i64([1, 2], [2]) });
  const whole = readFileSync(file);
  const end = 8 + Number(whole.readBigUInt64LE(0));
  fc.assert(
    fc.property(fc.integer({ min: 0, max: end - 1 }), fc.integer({ min: 0, max: 255 }), (position, value) => {
      const damaged = Buffer.from(whole);
      damaged[position] = value;
      writeFileSync(file, damaged);
      try {
        const opened = openSafetensors(file);
        for (const entry of opened.entries.values()) expect(entry.begin + entry.bytes).toBeLessThanOrEqual(whole.length);
      } catch (error) {
        expect((error as Error).message).toContain(file);
      }
    }),
  );
});

test('a file replaced after opening is noticed', () => {
  writeSafetensors(file, { a: f32([1], [1]) });
  const opened = openSafetensors(file);
  writeSafetensors(file, { a: f32([1, 2], [2]) });
  expect(() => opened.readTensor('a')).toThrow(/changed after it was opened/);
});

test('wrong tensors are not written and leave no file', () => {
  const path = join(folder, 'none.safetensors');
  const bad = { dtype: 'float32', shape: [3], data: new Float32Array(2) } as Tensor;
  expect(() => writeSafetensors(path, { bad })).toThrow(/bad has 2 elements/);
  expect(readdirSync(folder)).not.toContain('none.safetensors');
});
