/** The programs that the pages of docs/extending show, from source; package.slow.test.ts runs the pages themselves in an empty project. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { steer } from '../../examples/steer.ts';
import { editorContract } from '../../lab/contract.ts';
import { loadRecords } from '../../src/input/records.ts';
import { openTinyContract } from '../editors/tiny-contract.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-extending-'));
const home = process.cwd();
const { world, close } = await openTinyContract();
afterAll(async () => {
  process.chdir(home);
  await close();
  rmSync(folder, { recursive: true, force: true });
});

describe('steer', () => {
  for (const { name, run } of editorContract(steer, world)) test(name, run);
});

test.each([
  ['cube', 'values and gradient agree'],
  ['colours', '1 edit, reliability 1'],
  ['patch-llama', 'answered, attributed and edited'],
])('%s', async (name, line) => {
  process.chdir(folder);
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});
  await import(`../../examples/${name}.ts`);
  expect(log.mock.calls).toEqual([[line]]);
  log.mockRestore();
});

test('all problems of a file of records are told at once', () => {
  const data = join(folder, 'broken_vqa.json');
  writeFileSync(data, JSON.stringify([{ src: 'What is there?', alt: '', image: 'green.png' }]));
  expect(() => loadRecords(data, folder)).toThrow(/record 0: image: there is no image green\.png[\s\S]*alt is empty/);
});
