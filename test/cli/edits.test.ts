/** `visedit edits` as a person works with it, each command in a process of its own. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openLedger } from '../../src/ledger/reference.ts';
import { Random } from '../../src/random.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';
import { root, visedit } from './start.ts';

const folder = temporaryFolder();
let world: TinyWorld;
beforeAll(async () => {
  world = await writeTinyWorld(join(folder, 'world'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const records = (): { src: string; alt: string; image: string }[] => JSON.parse(readFileSync(world.test, 'utf8'));
const cue = ' The answer is:';
const common = ['--model', 'mini-llava', '--editor', 'ft-l'];
const about = (n: number, target?: string): string[] => {
  const { src, alt, image } = records()[n]!;
  return ['--image', join(world.images, image), '--prompt', src + cue, '--target', target ?? alt];
};

async function edits(words: readonly string[], wanted = 0) {
  const { code, stdout, stderr } = await visedit(['edits', ...words, '--json'], { cwd: folder });
  expect({ words, code, stderr: code === wanted ? '' : stderr }).toEqual({ words, code: wanted, stderr: '' });
  return JSON.parse(stdout);
}

describe('a set from its first edit to its undoing', () => {
  test('an edit is stored with its scope card; the model under the set says its target', async () => {
    const { added } = await edits(['add', 'own', ...common, ...about(1), '--note', 'asked by Ann']);
    expect(added).toMatchObject([
      { position: 1, enabled: true, note: 'asked by Ann', scope: { free: true, forced: true }, measured: { revision: 1 } },
    ]);
    const { leaks, pictures } = added[0].scope;
    expect([pictures[1], leaks.sameImage[1], leaks.otherPictures[1], leaks.textOnly[1]]).toEqual([2, 2, 2, 2]);
    const { stdout } = await visedit(
      ['generate', '--model', 'mini-llava', '--edits', 'own', ...about(1).slice(0, 4), '--quiet'],
      { cwd: folder },
    );
    expect(stdout.trim()).toBe(records()[1]!.alt);
  });

  test('a contradiction is refused with code 1 and stored with --force; conflicts tells of it with code 1', async () => {
    const { src, image } = records()[1]!;
    const other = ['--image', join(world.images, image), '--prompt', ` ${src.toUpperCase()}`, '--target', 'camera'];
    const refused = await edits(['add', 'own', ...common, ...other], 1);
    expect(refused).toMatchObject({ added: [], conflicts: [{ kind: 'contradicts' }] });
    expect((await edits(['list', 'own'])).sets[0].edits).toHaveLength(1);
    await edits(['conflicts', 'own']);
    const { code } = await visedit(['edits', 'add', 'own', ...common, ...other, '--force', '--measure', 'none', '--quiet'], {
      cwd: folder,
    });
    expect([0, 2]).toContain(code);
    expect(await edits(['conflicts', 'own'], 1)).toMatchObject({
      conflicts: [{ kind: 'contradicts', targets: [records()[1]!.alt, 'camera'] }],
    });
    const { enabled } = await edits(['show', 'own', '2']);
    expect(enabled).toBe(true);
    await edits(['revert', 'own']);
    expect((await edits(['show', 'own'])).entries).toHaveLength(1);
  });

  test('switched off, on, and back to any revision; nothing leaves the history', async () => {
    await edits(['add', 'own', ...common, ...about(2)]);
    const before = (await edits(['show', 'own'])).entries;
    expect(before).toHaveLength(2);
    expect((await edits(['disable', 'own', '1'])).entries[0].enabled).toBe(false);
    const off = await edits(['test', 'own']);
    expect(off.edits).toHaveLength(1);
    expect((await edits(['enable', 'own', '1', '--measure', 'none'])).entries).toEqual(before);
    expect((await edits(['revert', 'own', '--to', '1', '--measure', 'none'])).entries).toHaveLength(1);
    expect((await edits(['revert', 'own', '--to', '0', '--measure', 'none'])).entries).toHaveLength(0);
    expect((await edits(['revert', 'own'])).entries).toHaveLength(1);
    expect((await edits(['revert', 'own'])).entries).toEqual(before);
    const { revisions } = await edits(['show', 'own']);
    expect(revisions.map(({ revision }: { revision: number }) => revision)).toEqual(
      revisions.map((_: unknown, i: number) => i + 1),
    );
    const missing = await visedit(['edits', 'revert', 'own', '--to', '99'], { cwd: folder });
    expect([missing.code, missing.stderr]).toEqual([1, expect.stringContaining('has no revision 99')]);
  });

  test('the set is a regression test: code 0 and XML when all is as it was, code 1 when an edit no longer takes', async () => {
    const { passed, failed } = await edits(['test', 'own', '--junit', 'report.xml']);
    expect([passed > 10, failed]).toEqual([true, 0]);
    const xml = readFileSync(join(folder, 'report.xml'), 'utf8');
    expect(xml).toMatch(
      /^<\?xml version="1.0" encoding="UTF-8"\?>\n<testsuites name="visedit edits mini-llava@default" tests="\d+" failures="0"/,
    );
    // An edit whose file is another one's does not give its target.
    const ledger = openLedger({ folder: join(folder, 'own'), name: undefined }, 'read');
    const [one, two] = ledger.active(ledger.sets[0]!).map(({ id }) => ledger.path(id));
    const bytes = readFileSync(one!);
    writeFileSync(one!, readFileSync(two!));
    const broken = await edits(['test', 'own', '--junit', 'report.xml'], 1);
    expect(broken.failed).toBeGreaterThan(0);
    expect(readFileSync(join(folder, 'report.xml'), 'utf8')).toContain('<failure message="expected ');
    writeFileSync(one!, bytes);
    await edits(['test', 'own']);
  });

  test('a file is taken in with its picture, records one by one, and another ledger once', async () => {
    const made = ['edit', ...common, ...about(3), '--out', 'three.safetensors', '--probes', 'none'];
    await visedit(made, { cwd: folder });
    const [, image] = about(3);
    const { added } = await edits(['add', 'other', '--model', 'mini-llava', '--file', 'three.safetensors', '--image', image!]);
    expect(added[0]).toMatchObject({ prompt: records()[3]!.src + cue, scope: { free: true } });
    const both = await edits(['add', 'other#records', ...common, '--data', world.test, '--images', world.images, '--limit', '2']);
    expect(both.added).toHaveLength(2);
    expect(both.added[0].given).toMatchObject({ samePictures: 1, otherPictures: 1 });
    const merged = await edits(['merge', 'own', 'other']);
    expect([merged.taken.length, merged.passed.length]).toEqual([1, 0]);
    const again = await edits(['merge', 'own', 'other']);
    expect([again.taken.length, again.passed.length]).toEqual([0, 1]);
    // Of the records the second is an edit of this set already.
    const rest = await edits(['merge', 'own', 'other#records', '--measure', 'none']);
    expect([rest.taken.length, rest.passed.length]).toEqual([1, 1]);
    const several = await visedit(['edits', 'conflicts', 'other#none'], { cwd: folder });
    expect([several.code, several.stderr]).toEqual([1, expect.stringContaining('mini-llava@default, mini-llava@records')]);
  });

  test('errors say what to do', async () => {
    const said = async (words: readonly string[]): Promise<string> => {
      const { code, stderr } = await visedit(['edits', ...words], { cwd: folder });
      expect(code).toBe(1);
      return stderr;
    };
    expect(await said(['list', 'nothing'])).toContain('nothing holds no edits; `visedit edits add nothing` puts one there');
    expect(await said(['show', 'own', '77'])).toContain('the set has no edit "77"; give its number, from 1 to');
    expect(await said(['add', 'own', ...common])).toContain('give one of: --prompt with --image and --target');
    expect(await said(['add', 'own', ...common, '--prompt', 'What?'])).toContain('--prompt needs --image');
    expect(await said(['add', 'own', '--model', 'mini-llava', ...about(4)])).toContain('no editor is named');
    expect(await said(['add', 'own', '--model', 'mini-llava', '--editor', 'vead', ...about(4)])).toContain('holds edits of ft-l');
    expect(await said(['list', 'own#'])).toContain('names no set');
  });
});

test('a kill at any moment of adding leaves a ledger with every edit that was confirmed, and no part of another', async () => {
  const random = new Random('kills');
  const ledger = { folder: join(folder, 'killed'), name: undefined };
  const words = ['edits', 'add', 'killed', ...common, '--data', world.test, '--images', world.images, '--force', '--quiet'];
  let most = 0;
  for (let round = 0; round < 3; round++) {
    const child = spawn(process.execPath, [`${root}bin/visedit`, ...words], { cwd: folder, stdio: 'ignore' });
    const end = new Promise((resolve) => child.on('close', resolve));
    const log = join(ledger.folder, 'changes.jsonl');
    const lines = (): number => (existsSync(log) ? readFileSync(log, 'utf8').split('\n').length - 1 : 0);
    const wanted = lines() + 2;
    while (child.exitCode === null && lines() < wanted) await new Promise((resolve) => setTimeout(resolve, 10));
    const confirmed = lines();
    await new Promise((resolve) => setTimeout(resolve, random.int(400)));
    child.kill('SIGKILL');
    await end;
    const store = openLedger(ledger, 'change');
    const there = store.edits;
    expect(there.length).toBeGreaterThanOrEqual(confirmed);
    for (const { id, prompt } of there)
      expect([store.read(id).request.prompt, store.picture(id)?.length]).toEqual([prompt, expect.any(Number)]);
    most = there.length;
    store.close();
  }
  expect(most).toBeGreaterThanOrEqual(6);
  const { stdout } = await visedit(['edits', 'test', 'killed', '--json'], { cwd: folder });
  expect(JSON.parse(stdout).edits).toHaveLength(most);
}, 300_000);
