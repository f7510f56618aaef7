/** `visedit edit` as a person runs it: it says whether the edit took, by words, JSON and exit code. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { landscape } from '../../src/evaluation/probes.ts';
import { encodePng } from '../../src/figures/png.ts';
import { visedit } from './start.ts';

const dir = mkdtempSync(join(tmpdir(), 'visedit-edit-'));
const picture = join(dir, 'picture.png');
const image = landscape({ width: 96, height: 96 });
const out = join(dir, 'edit.safetensors');
const prompt = 'Which color is the background? The answer is:';
const words = ['edit', '--model', 'mini-llava', '--editor', 'ft-l', '--image', picture, '--prompt', prompt, '--out', out];

beforeAll(async () => writeFileSync(picture, await encodePng(image.width, image.height, image.data)));
afterAll(() => rmSync(dir, { recursive: true }));

test('a target that does not come: exit code 2, took false, a warning of its word; the file is there', async () => {
  const { code, stdout, stderr } = await visedit([...words, '--target', 'PIZZA', '--json']);
  const data = JSON.parse(stdout);
  expect({ code, took: data.took, written: existsSync(out) }).toEqual({ code: 2, took: false, written: true });
  expect(data.after.probability).toBeLessThan(1e-6);
  expect(data.card).toHaveLength(7);
  expect(data.warnings).toEqual([expect.stringMatching(/the target has words .*: "PIZZA"/)]);
  expect(stderr).toContain(`warning: ${data.warnings[0]}`);
});

test('a target that comes: exit code 0; without probes only the target is asked for', async () => {
  const { code, stdout, stderr } = await visedit([...words, '--target', 'pink', '--probes', 'none', '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(JSON.parse(stdout)).toMatchObject({ took: true, exact: true, forced: true, after: { text: 'pink' }, warnings: [] });
  expect(JSON.parse(stdout).card).toHaveLength(1);
});

test('rephrasings and pictures that are given are asked about', async () => {
  const given = ['--rephrase', 'What color is behind the things?', '--other-image', picture, '--other-image', picture];
  const { code, stdout } = await visedit([...words, '--target', 'pink', ...given]);
  expect(code).toBe(0);
  expect(stdout).toContain('What color is behind the things?');
  expect(stdout.match(/same question, other picture/g)).toHaveLength(2);
  expect(stdout).toMatch(/The edit took\.\nThe edit is in /);
});
