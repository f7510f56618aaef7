/** The examples of docs/server.md, run as they stand against a server of this test. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildWorld } from '../../lab/world/build.ts';
import { root } from '../cli/start.ts';
import { type Harness, startHarness } from './harness.ts';

const page = readFileSync(join(root, 'docs/server.md'), 'utf8');
const blocks = (language: string): string[] =>
  [...page.matchAll(/^```(\w*)\n(.*?)^```$/gms)].filter(([, of]) => of === language).map(([, , text]) => text!);
const hasCurl = spawnSync('curl', ['--version']).status === 0;
if (!hasCurl) console.warn('curl was not found: the examples of docs/server.md that use it are skipped');

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
  await buildWorld({
    seed: 7,
    out: join(harness.folder, 'here', 'world'),
    sizes: { vqaTrain: 0, vqaTest: 24, captionTrain: 0, captionTest: 0 },
  });
}, 60_000);
afterAll(() => harness.close());

const here = (text: string): string => text.replaceAll('http://127.0.0.1:8080', harness.server.url);

function run(program: string, words: string[]): Promise<{ code: number | null; out: string }> {
  return new Promise((resolve) => {
    const child = spawn(program, words, { cwd: join(harness.folder, 'here'), stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (piece) => {
      out += piece;
    });
    child.on('close', (code) => resolve({ code, out }));
  });
}

/** JSON documents that stand one behind the other. */
function documents(text: string): { choices?: { message: { content: string } }[]; [field: string]: unknown }[] {
  const parts = text.split(/(?<=\})(?=\{)/);
  return parts.filter((part) => part.trim() !== '').map((part) => JSON.parse(part));
}

describe.skipIf(!hasCurl)('in one shell, one after the other', () => {
  test('ask, correct, ask again, why, compare, switch, undo', async () => {
    const { code, out } = await run('sh', ['-e', '-c', here(blocks('sh').join('\n'))]);
    expect(code).toBe(0);
    const [before, edit, after, comparison, off, undone, set] = documents(out);
    expect(before!.choices![0]!.message.content).not.toBe('pizza');
    expect(edit).toMatchObject({ object: 'edit', set: 'fruit', editor: 'vead' });
    expect(after!.choices![0]!.message.content).toBe('pizza');
    expect(comparison).toMatchObject({ object: 'comparison', queries: [{ passed: true, same: false }, { same: true }] });
    expect(off).toMatchObject({ id: edit!.id, enabled: false });
    expect(undone).toMatchObject({ revision: 3, edits: [{ id: edit!.id, enabled: true }] });
    expect(set).toEqual(undone);
    expect(readFileSync(join(harness.folder, 'here', 'why.svg'), 'utf8')).toMatch(/^<svg /);
    expect(existsSync(join(harness.folder, 'here', 'edit.safetensors'))).toBe(true);
  }, 180_000);

  test('with the client', async () => {
    const [script] = blocks('js');
    const path = join(harness.folder, 'here', 'ask.mjs');
    writeFileSync(path, here(script!).replace("'openai'", JSON.stringify(import.meta.resolve('openai'))));
    const { code, out } = await run(process.execPath, [path]);
    expect(code).toBe(0);
    const lines = out.trim().split('\n');
    expect(lines.filter((line) => /^mini-llava {2}\S+ [01]\.\d{3}$/.test(line))).toHaveLength(1);
    expect(lines.filter((line) => /^mini-llava@fruit {2}pizza [01]\.\d{3}$/.test(line))).toHaveLength(1);
  }, 180_000);
});
