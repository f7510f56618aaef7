/** Weights that stay on disk: a program reads them where they lie, in one folder or in several. */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { add, input, matmul, parameter } from '../../src/graph/index.ts';
import { emit, type WeightLocation } from '../../src/onnx/emit.ts';
import { compile } from '../../src/runtime/node.ts';

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'visedit-external-')));
afterAll(() => rmSync(folder, { recursive: true }));

/** Each weight in a file of its own. */
function stored(paths: Record<string, string>): (name: string) => WeightLocation {
  return (name) => {
    const path = join(folder, paths[name]!);
    writeSafetensors(path, { [name]: f32(name === 'w' ? [1, 2, 3, 4] : [10, 20], name === 'w' ? [2, 2] : [2]) });
    const { begin, bytes, shape } = openSafetensors(path).entry(name);
    return { file: path, offset: begin, bytes, dtype: 'float32', shape };
  };
}

const y = add(matmul(input('x', ['b', 2]), parameter('w', [2, 2])), parameter('c', [2]));

test.each([
  ['one folder', { w: 'one/w.safetensors', c: 'one/c.safetensors' }, 'one'],
  ['a folder and one inside it', { w: 'two/w.safetensors', c: 'two/inner/c.safetensors' }, 'two'],
  ['folders side by side', { w: 'three/a/w.safetensors', c: 'three/ab/c.safetensors' }, 'three'],
])('%s', async (_, paths, common) => {
  expect(emit(new Map([['y', y]]), stored(paths)).folder).toBe(join(folder, common));
  const program = await compile({ y }, { weights: stored(paths), threads: 1 });
  const out = await program.run({ x: f32([1, 1], [1, 2]) });
  expect([...(out.y!.data as Float32Array)]).toEqual([14, 26]);
  await program.release();
});

test('nothing on disk needs no folder', () => {
  expect(emit(new Map([['y', y]]), () => undefined).folder).toBeUndefined();
});
