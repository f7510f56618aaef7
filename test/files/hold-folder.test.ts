/** One process at a time works in a folder, whatever moment the others come at or end. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { holdFolder } from '../../src/files/hold-folder.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-hold-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const module = new URL('../../src/files/hold-folder.ts', import.meta.url).href;

/** Runs code with `holdFolder` in a process of its own. */
function run(
  code: string,
  ...words: string[]
): { child: ReturnType<typeof spawn>; ended: Promise<{ code: number | null; said: string }> } {
  const script = `import { holdFolder } from '${module}'; import { existsSync, mkdirSync, rmdirSync } from 'node:fs'; ${code}`;
  const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', script, ...words]);
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (piece: Buffer) => {
      said += piece.toString();
    });
  return { child, ended: new Promise((resolve) => child.on('close', (exit) => resolve({ code: exit, said }))) };
}

test('processes that come again and again never overlap', async () => {
  const folder = join(scratch, 'many');
  // A folder that two make at once tells of an overlap: mkdir succeeds for one only.
  const code = `
    const folder = process.argv[1];
    let held = 0;
    for (let i = 0; i < 60; i++) {
      let release;
      try { release = holdFolder(folder); } catch (error) { if (!/is in use/.test(error.message)) throw error; continue; }
      mkdirSync(folder + '.inside');
      held++;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Math.random() * 3);
      rmdirSync(folder + '.inside');
      release();
    }
    console.log(held);`;
  const all = await Promise.all(Array.from({ length: 4 }, () => run(code, folder).ended));
  for (const { code: exit, said } of all) expect(exit, said).toBe(0);
  expect(all.reduce((sum, { said }) => sum + Number(said), 0)).toBeGreaterThan(60);
  expect(readdirSync(folder)).toEqual([]);
});

test('who works there is named; who was killed is not', async () => {
  const folder = join(scratch, 'killed');
  const { child, ended } = run(`holdFolder(process.argv[1]); console.log('held'); setInterval(() => {}, 1000);`, folder);
  await new Promise<void>((resolve) => child.stdout!.on('data', () => resolve()));
  expect(() => holdFolder(folder)).toThrow(`${folder} is in use: process ${child.pid} has worked in it since 20`);
  child.kill('SIGKILL');
  await ended;
  const release = holdFolder(folder);
  expect(readdirSync(folder)).toEqual([expect.stringContaining(String(process.pid))]);
  release();
  expect(readdirSync(folder)).toEqual([]);
});

test('a process of the same number that started at another time, and one of another machine', () => {
  const folder = join(scratch, 'other');
  const release = holdFolder(folder);
  const own = readdirSync(folder)[0]!;
  release();
  writeFileSync(join(folder, own.replace(/\d+$/, '1')), '');
  holdFolder(folder)();
  expect(readdirSync(folder)).toEqual([]);
  const elsewhere = `.in-use-by.${hostname()}-x.77.1`.replace(hostname(), hostname().replace(/[^\w-]/g, '_'));
  writeFileSync(join(folder, elsewhere), '');
  expect(() => holdFolder(folder)).toThrow(/process 77 of the machine .*-x has worked in it .* or remove .* if it is gone/);
});
