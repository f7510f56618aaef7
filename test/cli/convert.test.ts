import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from '../../src/models/load.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { visedit } from './start.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-convert-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('visedit convert writes a folder that opens', async () => {
  const dir = writeRandomLlava(join(folder, 'llava'));
  const out = join(folder, 'half');
  const { code, stdout, stderr } = await visedit(['convert', dir, '--out', out, '--dtype', 'float16', '--json', '--quiet']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(JSON.parse(stdout)).toMatchObject({ out, tensors: expect.any(Number), bytes: expect.any(Number) });
  expect(loadModel(out).architecture.name).toBe('llava');

  const again = await visedit(['convert', dir, '--out', out, '--quiet']);
  expect(again.code).toBe(1);
  expect(again.stderr).toBe(`visedit convert: ${out} is not empty; name a new folder\n`);
});

test('Ctrl-C in the middle leaves nothing', async () => {
  // Large enough that there is a middle.
  const dir = writeRandomLlava(join(folder, 'large'), { vocabulary: 100_000 });
  const out = join(folder, 'stopped', 'out');
  const { code, stderr } = await visedit(['convert', dir, '--out', out], { interruptAt: 'Converting' });
  expect(code, stderr).toBe(130);
  expect(stderr).toContain('nothing is left of the conversion');
  expect(existsSync(out)).toBe(false);
  expect(readdirSync(join(folder, 'stopped'))).toEqual([]);
});
