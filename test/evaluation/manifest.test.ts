/** Who works in a folder, and on what machine: the manifest says both. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { ManifestKeeper } from '../../src/evaluation/manifest.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-manifest-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const identity = { what: 'a run' };
const cpu = (threads: number) => ({ threads, device: 'cpu' });

test('going on with other threads or on another device is said, and which part was made where', () => {
  const folder = join(scratch, 'mixed');
  const first = new ManifestKeeper(folder, 'train', identity, false, undefined, cpu(2));
  expect(first.mixed).toBeUndefined();
  first.write(3, true);
  const same = new ManifestKeeper(folder, 'train', identity, true, undefined, cpu(2));
  expect(same.mixed).toBeUndefined();
  same.write(1, true);
  const other = new ManifestKeeper(folder, 'train', identity, true, undefined, { threads: 4, device: 'cuda' });
  expect(other.mixed).toMatch(
    /^this began with 2 threads on cpu and goes on with 4 threads on cuda: .*will not be those of a run on one of them/,
  );
  other.write(2, true);
  const { sessions } = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')).timings;
  expect(sessions.map(({ threads, device, done }: Record<string, unknown>) => [threads, device, done])).toEqual([
    [2, 'cpu', 3],
    [2, 'cpu', 1],
    [4, 'cuda', 2],
  ]);
});

test('another process in the folder is named before anything is changed; a finished run lets others in', () => {
  const folder = join(scratch, 'held');
  new ManifestKeeper(folder, 'train', identity, false).write(1, true);
  expect(readdirSync(folder)).toEqual(['manifest.json']);
  const held = new ManifestKeeper(folder, 'train', identity, true);
  const own = readdirSync(folder).find((name) => name.startsWith('.in-use-by.'))!;
  held.write(1, true);
  // A process that runs: the one that started this one.
  const start = readFileSync(`/proc/${process.ppid}/stat`, 'utf8').replace(/^.*\)/s, '').trim().split(' ')[19];
  writeFileSync(join(folder, own.replace(/\.\d+\.\d+$/, `.${process.ppid}.${start}`)), '');
  expect(() => new ManifestKeeper(folder, 'train', identity, true)).toThrow(
    new RegExp(`is in use: process ${process.ppid} has worked in it since`),
  );
});

test('settings that differ, and a manifest that is no manifest, let others in, too', () => {
  const folder = join(scratch, 'differs');
  new ManifestKeeper(folder, 'train', identity, false).write(1, true);
  expect(() => new ManifestKeeper(folder, 'train', { what: 'another' }, true)).toThrow(/What differs/);
  writeFileSync(join(folder, 'manifest.json'), '{"timings":{"sessions":3}}');
  expect(() => new ManifestKeeper(folder, 'train', identity, true)).toThrow(/manifest\.json does not fit/);
  expect(readdirSync(folder)).toEqual(['manifest.json']);
});

test('what another process finished meanwhile is found once the folder is held, and stays', () => {
  const folder = join(scratch, 'meanwhile');
  new ManifestKeeper(folder, 'train', identity, false).write(1, true);
  const before = readFileSync(join(folder, 'manifest.json'), 'utf8');
  const check = (): void => {
    expect(readdirSync(folder).some((name) => name.startsWith('.in-use-by.'))).toBe(true);
    throw new Error('holds a training already');
  };
  expect(() => new ManifestKeeper(folder, 'train', identity, false, undefined, undefined, check)).toThrow(/holds a training/);
  expect(readdirSync(folder)).toEqual(['manifest.json']);
  expect(readFileSync(join(folder, 'manifest.json'), 'utf8')).toBe(before);
});
