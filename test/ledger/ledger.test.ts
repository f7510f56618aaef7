/** Sets of edits on disk: kills at any moment, one process at a time, full disks, many edits, files that are held. */

import { spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readEdit } from '../../src/editors/files.ts';
import { Ledger, setId } from '../../src/ledger/ledger.ts';
import { Random } from '../../src/random.ts';
import { root } from '../cli/start.ts';
import { temporaryFolder } from '../tiny-world.ts';

const limits = { edits: 1e6, editsPerSet: 1e6 };
const about = (id: string, set = 's') => ({
  ...{ id, set, model: 'm', fingerprint: 'f', editor: 'vead', weights: null, prompt: 'p', target: 't', note: null },
  ...{ check: null, warnings: [] },
});

function add(ledger: Ledger, set?: string, bytes = 10): string {
  const id = ledger.newId();
  writeFileSync(ledger.path(id), Buffer.alloc(bytes));
  ledger.add(about(id, set), new Uint8Array(10));
  return id;
}

interface Line {
  ready?: true;
  doing?: string;
  done?: string;
  id: string;
  note?: string;
  prompt?: string;
}

test('a store that is killed at any moment has every change that it confirmed, and nothing half done', async () => {
  const folder = temporaryFolder();
  const random = new Random('kills');
  const wanted = new Map<string, { prompt: string; note: string | null }>();
  let changes = 0;
  for (let round = 0; round < 6; round++) {
    const child = spawn(
      process.execPath,
      ['--import', import.meta.resolve('tsx'), join(root, 'test/ledger/ledger-process.ts'), folder, `kills ${round}`],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let text = '';
    let planned = false;
    // Lines that are awaited, and milliseconds after them.
    const [after, delay] = [10 + random.int(40), random.int(30)];
    const end = new Promise((resolve) => child.on('close', resolve));
    child.stdout!.on('data', (piece) => {
      text += piece;
      if (planned || text.split('\n').length < after) return;
      planned = true;
      setTimeout(() => child.kill('SIGKILL'), delay);
    });
    await end;
    const lines = text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Line);
    for (const line of lines) {
      if (line.done === 'add') wanted.set(line.id, { prompt: line.prompt!, note: null });
      if (line.done === 'delete') wanted.delete(line.id);
      if (line.done === 'note') wanted.set(line.id, { ...wanted.get(line.id)!, note: line.note! });
    }
    changes += lines.filter(({ done }) => done !== undefined).length;
    // The change that was under way may have happened or not.
    const last = lines.at(-1)!;
    const open = last.doing === undefined ? undefined : last;
    const store = new Ledger(folder, limits);
    const there = new Map(store.edits.map((edit) => [edit.id, edit]));
    for (const [id, { prompt, note }] of wanted) {
      const edit = there.get(id);
      if (edit === undefined) expect([open?.doing, open?.id]).toEqual(['delete', id]);
      else if (edit.note !== note) expect([open?.doing, open?.note]).toEqual(['note', edit.note]);
      else expect(edit.prompt).toBe(prompt);
      if (edit === undefined) wanted.delete(id);
      else wanted.set(id, { prompt, note: edit.note });
    }
    for (const [id, { prompt, note }] of there) {
      if (!wanted.has(id)) expect([open?.doing, open?.id]).toEqual(['add', id]);
      wanted.set(id, { prompt, note });
      expect(readEdit(store.path(id)).request.prompt).toBe(prompt);
      expect(existsSync(store.picturePath(id))).toBe(true);
    }
    // What was not finished is swept away.
    expect(readdirSync(join(folder, 'edits')).sort()).toEqual([...there.keys()].map((id) => `${id}.safetensors`).sort());
    store.close();
  }
  expect(changes).toBeGreaterThan(20);
  rmSync(folder, { recursive: true });
}, 120_000);

test('one process at a time: locks of processes that are killed are taken over, and no two ever hold one together', async () => {
  const folder = temporaryFolder();
  const program = `
    import { writeFileSync, readFileSync, rmSync } from 'node:fs';
    import { FolderLock } from '${root}src/files/lock.ts';
    const inside = '${join(folder, 'inside')}';
    for (let taken = 0; taken < 40; ) {
      let lock;
      try { lock = new FolderLock('${folder}'); } catch (error) { if (!/in use by process/.test(error.message)) console.log(String(error)); await new Promise((r) => setTimeout(r, 1)); continue; }
      taken++;
      let other; try { other = Number(readFileSync(inside, 'utf8')); } catch {}
      if (other) { try { process.kill(other, 0); console.log('overlap with ' + other); } catch {} }
      writeFileSync(inside, String(process.pid));
      await new Promise((r) => setTimeout(r, Math.random() * 2));
      if (Math.random() < 0.1) process.kill(process.pid, 'SIGKILL');
      rmSync(inside, { force: true });
      lock.release();
    }`;
  const words = ['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', program];
  let said = '';
  const run = () =>
    new Promise<void>((resolve) => {
      const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] });
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (piece) => {
          said += piece;
        });
      child.on('close', () => resolve());
    });
  for (let round = 0; round < 2; round++) await Promise.all(Array.from({ length: 5 }, run));
  expect(said).toBe('');
  const ledger = new Ledger(folder, limits);
  expect(() => new Ledger(folder, limits)).toThrow(`in use by process ${process.pid}`);
  ledger.close();
  new Ledger(folder, limits).close();
  rmSync(folder, { recursive: true });
}, 120_000);

test('files that are held stay until they are let go, deleted or not; what a kill left is swept away', () => {
  const folder = temporaryFolder();
  const ledger = new Ledger(folder, limits);
  const id = add(ledger);
  const [first, second] = [ledger.hold([id]), ledger.hold([id])];
  ledger.delete(id);
  expect([ledger.has(id), existsSync(ledger.path(id))]).toEqual([false, true]);
  first();
  first();
  expect(existsSync(ledger.path(id))).toBe(true);
  second();
  expect(existsSync(ledger.path(id))).toBe(false);
  const other = add(ledger);
  ledger.hold([other])();
  expect(existsSync(ledger.path(other))).toBe(true);
  ledger.close();
  for (const name of [
    '.changes.jsonl.1.ab.tmp',
    'edits/.edit_1.safetensors.1.ab.tmp',
    'edits/edit_1.safetensors',
    'pictures/edit_1.png',
  ])
    writeFileSync(join(folder, name), 'half');
  // A line that was cut off was never confirmed.
  appendFileSync(join(folder, 'changes.jsonl'), '{"do":"delete","id":"');
  const again = new Ledger(folder, limits);
  expect(again.edits.map((edit) => edit.id)).toEqual([other]);
  expect(readdirSync(folder).filter((name) => name.startsWith('.'))).toEqual([]);
  expect(readdirSync(join(folder, 'edits'))).toEqual([`${other}.safetensors`]);
  again.update(other, { note: 'kept' });
  again.close();
  writeFileSync(join(folder, 'changes.jsonl'), `nonsense\n${readFileSync(join(folder, 'changes.jsonl'), 'utf8')}`);
  expect(() => new Ledger(folder, limits)).toThrow('changes.jsonl, line 1');
  rmSync(folder, { recursive: true });
});

test('the index of an earlier visedit is taken over with its histories', () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'edits'));
  const edits = [1, 2].map((n) => ({ ...about(`edit_${n}`), created: n, bytes: 1, picture: false }));
  for (const { id } of edits) writeFileSync(join(folder, 'edits', `${id}.safetensors`), 'x');
  const revision = (n: number, ids: string[]) => ({
    ...{ revision: n, at: n, action: 'add', edit: `edit_${n}`, to: null, undo: n - 1 },
    entries: ids.map((id) => ({ id, enabled: true })),
  });
  const history = [revision(1, ['edit_1']), revision(2, ['edit_1', 'edit_2'])];
  writeFileSync(join(folder, 'index.json'), JSON.stringify({ version: 1, edits, sets: [{ model: 'm', name: 's', history }] }));
  for (let round = 0; round < 2; round++) {
    const ledger = new Ledger(folder, limits);
    expect(ledger.edits).toEqual(edits);
    expect(ledger.set('m@s').history).toEqual({ revisions: history, entries: history[1]!.entries });
    ledger.close();
  }
  expect(existsSync(join(folder, 'index.json'))).toBe(false);
  rmSync(folder, { recursive: true });
});

test('lines that do not fit what is there are refused by their number', () => {
  const edit = { ...about('edit_0a'), created: 1, bytes: 1, picture: false };
  const entries = [{ id: 'edit_0b', enabled: true }];
  const revision = { revision: 1, at: 1, action: 'add', edit: 'edit_0b', to: null, undo: 0, entries };
  const open = (...lines: object[]): (() => Ledger) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'changes.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    return () => new Ledger(folder, limits);
  };
  const add = { do: 'add', edit, at: 1 };
  expect(open({ do: 'set', model: 'm', name: 's', history: [revision] })).toThrow(
    /line 1: the set s names the edit edit_0b, which no line before it adds to this set; put back a copy of the file/,
  );
  expect(open(add, add)).toThrow(/line 2: the edit edit_0a is there already/);
  const device = temporaryFolder();
  symlinkSync('/dev/zero', join(device, 'changes.jsonl'));
  expect(() => new Ledger(device, limits)).toThrow(/changes\.jsonl is not a file/);
  const given = { rephrasings: [], samePictures: 1e9, otherPictures: 0 };
  expect(open({ ...add, edit: { ...edit, given } })).toThrow(/line 1: .*expected at most 10000/s);
});

test('10,000 edits in sets with 200 revisions: a change takes some milliseconds, and opening seconds', () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'edits'));
  const sets = 157;
  const lines: string[] = [];
  for (let s = 0; s < sets; s++) {
    const ids = Array.from({ length: 64 }, (_, i) => `edit_${(s * 64 + i).toString(16).padStart(16, '0')}`);
    for (const id of ids) {
      writeFileSync(join(folder, 'edits', `${id}.safetensors`), '');
      lines.push(JSON.stringify({ do: 'add', at: 1, edit: { ...about(id, `s${s}`), created: 1, bytes: 0, picture: false } }));
    }
    for (let i = 0; i < 136; i++)
      lines.push(JSON.stringify({ do: 'switch', at: 2, id: ids[i % 64], enabled: Math.floor(i / 64) % 2 === 1 }));
  }
  writeFileSync(join(folder, 'changes.jsonl'), `${lines.join('\n')}\n`);
  const opened = performance.now();
  const ledger = new Ledger(folder, limits);
  const opening = performance.now() - opened;
  expect([ledger.size, ledger.sets.every(({ history }) => history.revisions.length === 200)]).toEqual([sets * 64, true]);
  const states = ledger.sets.map(({ history }) => history);
  const times: number[] = [];
  const random = new Random('changes');
  const timed = (make: () => void): void => {
    const began = performance.now();
    make();
    times.push(performance.now() - began);
  };
  const some = () => ledger.edits[random.int(ledger.size)]!;
  for (let i = 0; i < 20; i++) {
    const edit = some();
    timed(() => ledger.update(edit.id, { enabled: !ledger.isEnabled(edit) }));
    timed(() => ledger.update(edit.id, { note: `n${i}` }));
    timed(() => ledger.revert(setId({ model: 'm', name: edit.set })));
    timed(() => ledger.delete(edit.id));
    timed(() => add(ledger, edit.set));
  }
  ledger.close();
  const [median] = [...times].sort((a, b) => a - b).slice(times.length / 2);
  const reopened = performance.now();
  const again = new Ledger(folder, limits);
  console.log(JSON.stringify({ opening, reopening: performance.now() - reopened, change: median, log: statSize(folder) }));
  expect(median).toBeLessThan(20);
  expect(again.sets.map(({ history }) => history)).toEqual(ledger.sets.map(({ history }) => history));
  expect(again.sets.map(({ history }) => history)).not.toEqual(states);
  again.close();
  rmSync(folder, { recursive: true });
}, 120_000);

const statSize = (folder: string): number => readFileSync(join(folder, 'changes.jsonl')).length;

const mounts = process.platform === 'linux' && process.getuid?.() === 0;
describe.skipIf(!mounts)('on a full disk', () => {
  test('nothing partial is left, what was confirmed stays, and deleting works', ({ skip }) => {
    const folder = temporaryFolder();
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', folder]).status !== 0)
      skip('no file system can be mounted here');
    try {
      const ledger = new Ledger(folder, limits);
      const ids = [add(ledger), add(ledger)];
      // Up to the last byte.
      const ballast = join(folder, 'ballast');
      writeFileSync(ballast, '');
      for (let size = 65_536; size >= 1; size = Math.floor(size / 2))
        try {
          for (;;) appendFileSync(ballast, Buffer.alloc(size));
        } catch {}
      expect(statfsSync(folder).bavail).toBe(0);
      const log = () => readFileSync(join(folder, 'changes.jsonl'), 'utf8');
      // What is left of the log's last page is used up, too.
      for (let i = 0; ; i++)
        try {
          ledger.update(ids[0]!, { note: `${i} ${'x'.repeat(500)}` });
        } catch {
          break;
        }
      const before = log();
      const note = ledger.edit(ids[0]!).note;
      for (let i = 0; i < 3; i++) expect(() => ledger.update(ids[0]!, { note: 'y'.repeat(5000) })).toThrow(/ENOSPC|no space/);
      expect(() => add(ledger, 'other')).toThrow(/ENOSPC|no space/);
      expect([log(), ledger.edit(ids[0]!).note, ledger.size]).toEqual([before, note, 2]);
      ledger.delete(ids[1]!);
      expect(ledger.size).toBe(1);
      ledger.close();
      rmSync(ballast);
      const again = new Ledger(folder, limits);
      expect(again.edits).toEqual(ledger.edits);
      expect(readdirSync(join(folder, 'edits'))).toEqual([`${ids[0]}.safetensors`]);
      again.close();
    } finally {
      spawnSync('umount', [folder]);
      rmSync(folder, { recursive: true });
    }
  });
});
