/**
 * Commands that write, killed at random moments and given again: they end well, leave the files of a run that was let be, and no others.
 * VISEDIT_KILLS says how many kills (default 16); the order is seeded.
 */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { Ledger } from '../../src/ledger/ledger.ts';
import { Random } from '../../src/random.ts';
import { viseditUntil } from '../evaluation/kill.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';
import { visedit } from './start.ts';

const kills = Number(process.env.VISEDIT_KILLS ?? 16);
const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
let world: TinyWorld;
let image: string;

beforeAll(async () => {
  writeRandomLlava(at('model'), { positions: 256 });
  world = await writeTinyWorld(at('world'), { vqaTest: 12 });
  image = join(world.images, readdirSync(world.images).sort()[0]!);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Words of a command that writes below a folder; what is resumed needs a word more. */
const commands: Record<string, { words: (out: string) => string[]; resume?: string[] }> = {
  'world build': {
    words: (out) => [
      ...['world', 'build', '--seed', '3', '--out', join(out, 'w'), '--vqa-train', '6', '--vqa-test', '6'],
      ...['--caption-train', '2', '--caption-test', '2'],
    ],
  },
  convert: { words: (out) => ['convert', at('model'), '--dtype', 'float16', '--out', join(out, 'half')] },
  quantize: { words: (out) => ['quantize', at('model'), '--dtype', 'int8', '--out', join(out, 'int8')] },
  edit: {
    words: (out) => [
      ...['edit', '--model', at('model'), '--editor', 'ft-l', '--image', image, '--prompt', 'What is this?'],
      ...['--target', 'pizza', '--probes', 'none', '--out', join(out, 'edit.safetensors')],
    ],
  },
  trace: {
    words: (out) => ['trace', '--model', at('model'), '--image', image, '--prompt', 'What?', '--out', join(out, 't.safetensors')],
  },
  'attribute visual': {
    words: (out) => [
      ...['attribute', 'visual', '--model', at('model'), '--image', image, '--prompt', 'What?'],
      ...['--layers', '1', '--out', join(out, 'map.png')],
    ],
  },
  'attribute check': {
    words: (out) => [
      ...['attribute', 'check', '--model', at('model'), '--image', image, '--prompt', 'What?', '--methods', 'norm,random'],
      ...['--hide', 'grey', '--steps', '2', '--out', join(out, 'check.svg')],
    ],
  },
  train: {
    words: (out) => [
      ...['train', 'vead', '--model', at('model'), '--data', world.train, '--images', world.images, '--steps', '6'],
      ...['--batch', '2', '--set', 'width=32', '--set', 'influenceWidth=16', '--out', join(out, 'vead')],
    ],
    resume: ['--resume'],
  },
  evaluate: {
    words: (out) => [
      ...['evaluate', '--model', at('model'), '--editor', 'ft-l', '--data', world.test, '--images', world.images],
      ...['--batch', '2', '--max-new-tokens', '4', '--out', join(out, 'ev')],
    ],
    resume: ['--resume'],
  },
};

/** Files below a folder; of those that hold times, their names alone. */
function filesOf(folder: string, below = ''): Map<string, string> {
  const found = new Map<string, string>();
  if (!existsSync(folder)) return found;
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    const inside = below === '' ? name : `${below}/${name}`;
    if (statSync(path).isDirectory()) for (const [one, hash] of filesOf(path, inside)) found.set(one, hash);
    else
      found.set(
        inside,
        /manifest|log\.jsonl|state|checkpoint/.test(inside)
          ? 'times'
          : createHash('sha256').update(readFileSync(path)).digest('hex'),
      );
  }
  return found;
}

/** Lines of a log in their order, without times. */
const names = (files: ReadonlyMap<string, string>): string[] => [...files].map(([name, hash]) => `${name} ${hash}`).sort();

test(`${kills} kills: the same command ends well afterwards, with the same files and no others`, async () => {
  const random = new Random('kills');
  const whole = new Map<string, { files: string[]; seconds: number }>();
  for (const [name, { words }] of Object.entries(commands)) {
    const out = at('whole', name);
    mkdirSync(out, { recursive: true });
    const ended = await visedit(words(out));
    expect([name, ended.code, ended.code === 0 ? '' : ended.stderr]).toEqual([
      name,
      name === 'edit' ? 2 : 0,
      ended.code === 2 ? ended.stderr : '',
    ]);
    whole.set(name, { files: names(filesOf(out)), seconds: ended.seconds });
  }
  let hits = 0;
  for (let kill = 0; kill < kills; kill++) {
    const [name, { words, resume = [] }] = Object.entries(commands)[kill % Object.keys(commands).length]!;
    const { files, seconds } = whole.get(name)!;
    const out = at('killed', String(kill));
    mkdirSync(out, { recursive: true });
    const moment = performance.now() + 1000 * seconds * (0.2 + 0.8 * random.uniform());
    const { hit } = await viseditUntil(words(out), () => performance.now() >= moment, 'SIGKILL');
    if (hit) hits++;
    const left = names(filesOf(out));
    // Killed after its work was done: some commands refuse a folder that is full.
    if (left.join() !== files.join()) {
      const again = await visedit([...words(out), ...resume]);
      expect([0, 2], `${name} says ${again.stderr}, killed with ${left.join(', ')}`).toContain(again.code);
      expect(names(filesOf(out)), `${name}, killed with ${left.join(', ')}`).toEqual(files);
    }
    rmSync(out, { recursive: true, force: true });
  }
  console.log(`${hits} of ${kills} kills hit a running command`);
  expect(hits).toBeGreaterThan(0.6 * kills);
});

/** Edits of a ledger by prompt, and whether each is on. */
const inLedger = (folder: string): string[] => {
  const ledger = new Ledger(folder, { edits: 1e6, editsPerSet: 1e6 });
  try {
    const files = readdirSync(join(folder, 'edits')).map((name) => name.split('.')[0]!);
    expect(files.sort()).toEqual(ledger.edits.map(({ id }) => id).sort());
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    for (const { id } of ledger.edits) ledger.read(id);
    return ledger.edits.map((edit) => `${edit.prompt} ${ledger.isEnabled(edit)}`).sort();
  } finally {
    ledger.close();
  }
};

const ledgerKills = Math.ceil(kills / 4);
test(`${ledgerKills} kills of commands that change a ledger: what was confirmed is there, and each command did all or nothing`, async () => {
  const random = new Random('ledgers');
  const asked = ['--model', at('model'), '--measure', 'none', '--max-new-tokens', '2'];
  const add = (folder: string, prompt: string): string[] => [
    ...[
      'edits',
      'add',
      folder,
      '--editor',
      'ft-l',
      '--image',
      image,
      '--prompt',
      prompt,
      '--target',
      'pizza',
      '--force',
      ...asked,
    ],
  ];
  const done = ({ code, stderr }: { code: number | null; stderr: string }): void => expect([0, 2], stderr).toContain(code);
  const [kept, other] = [at('ledger'), at('other')];
  for (const [folder, prompt] of [
    [kept, 'A?'],
    [kept, 'B?'],
    [other, 'C?'],
  ] as const)
    done(await visedit(add(folder, prompt)));
  const before = inLedger(kept);
  const both = ['A? true', 'B? true'];
  expect(before).toEqual(both);
  const changes: Record<string, { words: (folder: string) => string[]; after: string[] }> = {
    add: { words: (folder) => add(folder, 'D?'), after: [...both, 'D? true'] },
    revert: { words: (folder) => ['edits', 'revert', folder, ...asked], after: ['A? true', 'B? false'] },
    merge: { words: (folder) => ['edits', 'merge', folder, other, ...asked], after: [...both, 'C? true'] },
  };
  const seconds = new Map<string, number>();
  for (const [name, { words, after }] of Object.entries(changes)) {
    cpSync(kept, at('whole', name), { recursive: true });
    const ended = await visedit(words(at('whole', name)));
    done(ended);
    expect(inLedger(at('whole', name))).toEqual(after);
    seconds.set(name, ended.seconds);
  }
  let hits = 0;
  for (let kill = 0; kill < ledgerKills; kill++) {
    const [name, { words, after }] = Object.entries(changes)[kill % Object.keys(changes).length]!;
    const folder = at('killed ledger', String(kill));
    cpSync(kept, folder, { recursive: true });
    const moment = performance.now() + 1000 * seconds.get(name)! * (0.3 + 0.7 * random.uniform());
    const { hit } = await viseditUntil(words(folder), () => performance.now() >= moment, 'SIGKILL');
    if (hit) hits++;
    const now = inLedger(folder).join();
    expect([before.join(), after.join()], `${name}, killed`).toContain(now);
    if (now === before.join()) {
      done(await visedit(words(folder)));
      expect(inLedger(folder)).toEqual(after);
    }
    rmSync(folder, { recursive: true, force: true });
  }
  console.log(`${hits} of ${ledgerKills} kills hit a running command`);
});
