import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { differences, ManifestKeeper } from '../../src/evaluation/manifest.ts';
import { Appender, gather, partFile, readResults, recordsFile } from '../../src/evaluation/store.ts';
import { temporaryFolder } from '../tiny-world.ts';

const root = temporaryFolder();
afterAll(() => rmSync(root, { recursive: true, force: true }));
const folder = (name: string): string => {
  mkdirSync(join(root, name));
  return join(root, name);
};
const result = (index: number) => ({ index, target: `t${index}`, queries: {} });
const batches = [[0, 1], [2, 3], [4]];

test('a half-written last line and a half-written batch are dropped', () => {
  const dir = folder('cut');
  const file = new Appender(join(dir, recordsFile));
  file.append([result(0), result(1)]);
  file.append([result(2), result(3)]);
  file.close();
  const whole = readFileSync(join(dir, recordsFile), 'utf8');
  for (let cut = 0; cut <= whole.length; cut += 7) {
    writeFileSync(join(dir, recordsFile), whole.slice(0, cut));
    const finished = gather(dir, batches);
    const lines = readResults(dir).map(({ index }) => index);
    expect(lines).toEqual([...finished].flatMap((i) => batches[i]!));
    expect(whole.startsWith(readFileSync(join(dir, recordsFile), 'utf8'))).toBe(true);
  }
  // JSON without its newline may still lack digits.
  writeFileSync(join(dir, recordsFile), whole.slice(0, -1));
  expect(gather(dir, batches)).toEqual(new Set([0]));
});

test('parts of several processes become one file in the order of the records', () => {
  const dir = folder('parts');
  for (const [part, list] of [
    [[4]],
    [
      [2, 3],
      [0, 1],
    ],
  ].entries()) {
    const file = new Appender(join(dir, partFile(part)));
    for (const batch of list) file.append(batch.map(result));
    file.close();
  }
  appendFileSync(join(dir, partFile(0)), '{"index":9,"quer');
  expect(gather(dir, batches)).toEqual(new Set([0, 1, 2]));
  expect(readResults(dir).map(({ index }) => index)).toEqual([0, 1, 2, 3, 4]);
  expect(readdirSync(dir)).toEqual([recordsFile]);
});

test('a manifest refuses the work of another run and adds up the times of its own', () => {
  const dir = folder('manifest');
  new ManifestKeeper(dir, 'evaluate', { data: { sha256: 'a' }, seed: 1 }, false).write(2, false);
  expect(() => new ManifestKeeper(dir, 'evaluate', { data: { sha256: 'b' }, seed: 1 }, true)).toThrow(
    'data.sha256: there "a", here "b"',
  );
  const { timings, finished } = new ManifestKeeper(dir, 'evaluate', { data: { sha256: 'a' }, seed: 1 }, true).write(3, true);
  expect(finished).toBe(true);
  expect(timings.sessions.map(({ done }) => done)).toEqual([2, 3]);
  expect(differences({ a: [1, 2] }, { a: [1, 3] })).toEqual(['a.1: there 2, here 3']);
});
