import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { savePicture } from '../../src/figures/save-picture.ts';
import { makeFolder, placeFolder, writeFileAtomic } from '../../src/files/atomic.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-atomic-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('text, bytes and chunks are written, folders are made', () => {
  const path = join(folder, 'x', 'y', 'a.txt');
  writeFileAtomic(path, 'grüß');
  expect(readFileSync(path, 'utf8')).toBe('grüß');
  writeFileAtomic(path, [Uint8Array.of(65), new Uint8Array(0), Uint8Array.of(66, 67)]);
  expect(readFileSync(path, 'utf8')).toBe('ABC');
  expect(readdirSync(join(folder, 'x', 'y'))).toEqual(['a.txt']);
});

test('an error keeps the former file and cleans up', () => {
  const path = join(folder, 'keep', 'a.txt');
  writeFileAtomic(path, 'former');
  const chunks = function* () {
    yield Uint8Array.of(1);
    throw new Error('source broke');
  };
  expect(() => writeFileAtomic(path, chunks())).toThrow(/cannot write .*a\.txt: source broke/);
  expect(readFileSync(path, 'utf8')).toBe('former');
  expect(readdirSync(join(folder, 'keep'))).toEqual(['a.txt']);
});

test('impossible places are explained', () => {
  mkdirSync(join(folder, 'dir', 'inner'), { recursive: true });
  expect(() => writeFileAtomic(join(folder, 'dir'), 'x')).toThrow(/a folder has that name/);
  writeFileSync(join(folder, 'plain'), '');
  expect(() => writeFileAtomic(join(folder, 'plain', 'a'), 'x')).toThrow(/is a file, not a folder/);
});

test('a full disk is explained', () => {
  const chunks = function* () {
    yield Uint8Array.of(1);
    throw Object.assign(new Error('write'), { code: 'ENOSPC' });
  };
  expect(() => writeFileAtomic(join(folder, 'full.bin'), chunks())).toThrow(
    /no space left to write .*full\.bin; nothing was changed/,
  );
});

test('a process killed while writing leaves the whole former file', async () => {
  const path = join(folder, 'killed', 'big.bin');
  writeFileAtomic(path, new Uint8Array(1000));
  const script = `import { writeFileAtomic } from ${JSON.stringify(new URL('../../src/files/atomic.ts', import.meta.url).href)};
    function* chunks() { console.log('started'); for (;;) yield new Uint8Array(65536); }
    writeFileAtomic(${JSON.stringify(path)}, chunks());`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const ended = new Promise((resolve) => child.once('exit', resolve));
  await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill('SIGKILL');
  await ended;
  expect(statSync(path).size).toBe(1000);
});

/** Only root may mount a disk; a full or read-only one is made of memory. */
function withDisk(options: string, use: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', folder], { stdio: 'ignore' });
  } catch {
    console.warn('no disk can be mounted here: this test is skipped');
    rmSync(folder, { recursive: true });
    return;
  }
  try {
    use(folder);
  } finally {
    execFileSync('umount', [folder]);
    rmSync(folder, { recursive: true });
  }
}

test('a read-only disk is called that, whatever is to be written', () => {
  withDisk('ro', (folder) => {
    for (const path of [join(folder, 'a'), join(folder, 'a', 'b', 'c')]) {
      expect(() => makeFolder(path)).toThrow(`not allowed to write ${path} (EROFS); choose another folder`);
      expect(() => writeFileAtomic(join(path, 'x'), 'x')).toThrow(/not allowed to write .* \(EROFS\)/);
      expect(() => savePicture(join(path, 'x.svg'), '<svg/>')).toThrow(/EROFS/);
    }
  });
});

test('a full disk is left with nothing half written', () => {
  withDisk('size=64k', (folder) => {
    const big = 'x'.repeat(200_000);
    expect(() => writeFileAtomic(join(folder, 'a'), big)).toThrow(/no space left/);
    expect(() => savePicture(join(folder, 'a.svg'), big)).toThrow(/ENOSPC/);
    expect(readdirSync(folder)).toEqual([]);
  });
});

test('a place where no folder can be made ends in a message', () => {
  expect(() => makeFolder('/proc/visedit/a')).toThrow(/cannot write \/proc\/visedit\/a/);
  const file = join(folder, 'a-file');
  writeFileSync(file, '');
  expect(() => makeFolder(join(file, 'b'))).toThrow(/part of the path is a file/);
});

test('a folder that another run finished first stays, and the loser says so', () => {
  const [first, second, to] = ['first', 'second', 'to'].map((name) => join(folder, 'race', name)) as [string, string, string];
  for (const draft of [first, second]) {
    makeFolder(draft);
    writeFileSync(join(draft, 'who'), draft);
  }
  makeFolder(to);
  placeFolder(first, to);
  expect(() => placeFolder(second, to)).toThrow(`${to} is not empty: another run wrote it meanwhile`);
  expect(readFileSync(join(to, 'who'), 'utf8')).toBe(first);
});
