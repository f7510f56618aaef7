import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { writeRandomLlava } from '../tiny-model.ts';
import { visedit } from './start.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-cli-quantize-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('visedit quantize writes a folder that other commands open', async () => {
  const dir = writeRandomLlava(join(folder, 'llava'), { hidden: 64, mlp: 64 });
  const out = join(folder, 'int4');
  const { code, stdout, stderr } = await visedit(['quantize', dir, '--out', out, '--json']);
  expect(code, stderr).toBe(0);
  expect(stderr).toMatch(/Rounding .*llava to int4: \d+ MB on disk, from \d+ MB\./);
  expect(JSON.parse(stdout)).toMatchObject({ out, dtype: 'int4', tensors: expect.any(Number), bytes: expect.any(Number) });

  const inspected = await visedit(['inspect', out, '--json']);
  expect(JSON.parse(inspected.stdout).dtype).toContain('int4');
});

test('Ctrl-C in the middle leaves nothing', async () => {
  const dir = writeRandomLlava(join(folder, 'large'), { hidden: 512, mlp: 2048, layers: 6 });
  const out = join(folder, 'stopped', 'out');
  const { code, stderr } = await visedit(['quantize', dir, '--out', out], { interruptAt: 'to int4:' });
  expect(code, stderr).toBe(130);
  expect(stderr).toContain('nothing is left of the rounding');
  expect(existsSync(out)).toBe(false);
  expect(readdirSync(join(folder, 'stopped'))).toEqual([]);
});

test.each([
  [
    ['--dtype', 'int3', '--max-memory', 'much'],
    [
      "--dtype 'int3' is not one of: float32, float16, int8, int4",
      "--max-memory 'much' is not a size; give one such as 8GB or 500MB",
    ],
  ],
  [
    ['--max-memory', '10MB'],
    ['mini-llava needs about 2', 'and 10 MB may be used'],
  ],
])('%j is refused', async (options, messages) => {
  const { code, stderr } = await visedit(['generate', '--model', 'mini-llava', '--prompt', 'x', ...options]);
  expect(code).toBe(1);
  for (const message of messages) expect(stderr).toContain(message);
});
