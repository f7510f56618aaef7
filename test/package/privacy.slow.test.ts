/** Nothing is written outside the folders that a user names, and no host is looked up that a user did not name: every command, watched by strace. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { commands } from '../../apps/cli/commands/index.ts';
import type { CommandEntry } from '../../apps/cli/frame/command.ts';
import { type Hub, startHub } from '../files/hub-server.ts';
import { Project } from './install.ts';
import { hasStrace, type Traced, traced } from './traced.ts';

if (!hasStrace && process.env.CI !== undefined) throw new Error('strace is missing: .ci/run installs it');
if (!hasStrace) console.warn('strace was not found: what commands write and look up is not checked');

let project: Project;
let here: string;
let env: NodeJS.ProcessEnv;
let hub: Hub;
beforeAll(async () => {
  if (!hasStrace) return;
  project = new Project();
  const beside = (name: string): string => {
    const path = join(project.folder, '..', name);
    mkdirSync(path);
    return path;
  };
  here = beside('here');
  const { ORT_DISABLE_TELEMETRY: _, ...inherited } = process.env;
  env = { ...inherited, HOME: beside('home'), TMPDIR: beside('temporary'), VISEDIT_THREADS: '1', XDG_CACHE_HOME: undefined };
  const model = join(project.package, 'models', 'mini-llava');
  const files = readdirSync(model).filter((name) => name !== 'editors' && name !== 'training.json');
  hub = await startHub({ files: Object.fromEntries(files.map((name) => [name, readFileSync(join(model, name))])) });
});
afterAll(async () => {
  await hub?.close();
  project?.remove();
});

/** Devices of the system, which a program may open, and this process's own entries. */
const system = /^\/(dev|proc\/self|proc\/\d+)\//;

function check({ written, asked }: Traced, hosts: readonly string[] = []): void {
  expect(written.filter((path) => path !== here && !path.startsWith(`${here}/`) && !system.test(path))).toEqual([]);
  expect(asked.filter((address) => !hosts.some((host) => address.startsWith(host)))).toEqual([]);
  for (const folder of ['home', 'temporary']) expect(readdirSync(join(here, '..', folder))).toEqual([]);
}

const about = ['--model', 'mini-llava', '--image', 'tour/picture.png', '--prompt', 'What is at the top left? The answer is:'];
const records = ['--data', 'tour/world/vqa_test.json', '--images', 'tour/world/images'];
/** In an order in which each finds what it reads. */
const lines: readonly (readonly string[])[] = [
  ['demo', '--out', 'tour'],
  ['inspect', 'mini-llava'],
  ['generate', ...about, '--max-new-tokens', '3'],
  ['trace', ...about, '--out', 'trace.safetensors'],
  ['attribute', 'modules', ...about, '--out', 'modules.png'],
  ['attribute', 'visual', ...about, '--protocol', 'paper', '--draws', '2', '--out', 'maps.svg'],
  ...['lens', 'attention', 'heads', 'neurons', 'words', 'trace', 'knockout'].map((tool) => [
    'attribute',
    tool,
    ...about,
    '--out',
    `${tool}.svg`,
  ]),
  ['attribute', 'patch', ...about, '--against-prompt', 'What is at the top right? The answer is:'],
  ['attribute', 'steer', ...about, '--toward', 'a cat', '--away', 'a dog', '--layer', '3'],
  ['attribute', 'check', '--model', 'mini-llava', ...records, '--limit', '1', '--csv', 'check.csv'],
  ['attribute', 'plan', '--model', 'mini-llava', ...records, '--limit', '2'],
  ['edits', 'add', 'ledger', ...about, '--editor', 'ft-l', '--target', 'pizza', '--measure', 'none'],
  ['edits', 'list', 'ledger'],
  ['edits', 'show', 'ledger', '1'],
  ['edits', 'conflicts', 'ledger'],
  ['edits', 'test', 'ledger', '--update'],
  ['edits', 'export', 'ledger', '--out', 'exported'],
  ['edits', 'disable', 'ledger', '1'],
  ['edits', 'enable', 'ledger', '1'],
  ['edits', 'revert', 'ledger', '--measure', 'none'],
  ['edits', 'merge', 'merged', 'ledger', '--measure', 'none'],
  ['edit', ...about, '--editor', 'vead', '--target', 'pizza', '--out', 'edit.safetensors'],
  ['generate', ...about, '--edit', 'edit.safetensors', '--max-new-tokens', '3'],
  ['world', 'build', '--out', 'world', '--seed', '2'],
  ['world', 'exam', 'mini-llava', '--scenes', '2'],
  ['world', 'pretrain', 'mini-llava', '--out', 'mini'],
  ['train', 'tp', '--model', 'mini-llava', ...records, '--limit', '8', '--out', 'training'],
  ['evaluate', '--model', 'mini-llava', '--editor', 'vead', ...records, '--limit', '17', '--jobs', '2', '--out', 'evaluation'],
  [
    'reproduce',
    'table1',
    ...['--model', 'mini-llava', '--editor', 'ft-l', '--dataset', 'vqa', '--limit', '2'],
    '--world',
    'world',
  ],
  ['reproduce', 'figure5', '--out', 'figure'],
  ['conformance', 'fixtures'],
  ['convert', 'mini-llava', '--out', 'converted'],
  ['quantize', 'mini-llava', '--out', 'quantized'],
  ['devices'],
  ['pull', 'org/model', '--out', 'pulled', '--endpoint', 'HUB'],
  ['worker', '--queue', 'redis://127.0.0.1:9'],
  ['serve', '--model', 'mini-llava', '--port', '0'],
  ['studio', '--model', 'mini-llava', '--port', '0', '--browser', 'never'],
];

/** Asks, and waits: a collector would be looked up within half a minute. */
async function chat(url: string): Promise<void> {
  const body = { model: 'mini-llava', max_tokens: 2, messages: [{ role: 'user', content: 'What is one plus five?' }] };
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
  expect(answer.status).toBe(200);
  await new Promise((resolve) => setTimeout(resolve, 35_000));
}

async function names(group: Record<string, CommandEntry>, before = ''): Promise<string[]> {
  const found = await Promise.all(
    Object.entries(group).map(async ([name, { load }]) => {
      const { command } = await load();
      return 'commands' in command ? names(command.commands, `${before}${name} `) : [`${before}${name}`];
    }),
  );
  return found.flat();
}

test('every command is watched', async () => {
  const watched = lines.map((words) => words.join(' '));
  expect((await names(commands)).filter((name) => !watched.some((line) => `${line} `.startsWith(`${name} `)))).toEqual([]);
});

test.skipIf(!hasStrace)('what is written elsewhere and who is looked up is seen', async () => {
  const script = `require('fs').writeFileSync(require('os').homedir() + '/left', ''); require('fs').unlinkSync(require('os').homedir() + '/left');
    require('dns').promises.lookup('collector.example').catch(() => {});
    require('net').connect(9, '127.0.0.1').on('error', () => {});`;
  const { written, asked } = await traced([process.execPath, '-e', script], { cwd: here, env });
  expect(written).toContain(join(env.HOME!, 'left'));
  expect(asked).toContain('127.0.0.1:9');
  expect(asked.some((address) => address.endsWith(':53'))).toBe(true);
});

test.skipIf(!hasStrace).each(lines.map((words) => [words.join(' '), words] as const))('visedit %s', async (_, words) => {
  mkdirSync(join(here, 'fixtures'), { recursive: true });
  const given = words.map((word) => (word === 'HUB' ? hub.endpoint : word));
  const served = words[0] === 'serve' || words[0] === 'studio' ? chat : undefined;
  // A training of its own takes minutes.
  const stopped = words[1] === 'pretrain';
  const ran = await traced([process.execPath, project.command, ...given], {
    ...{ cwd: here, env, served },
    seconds: stopped ? 40 : undefined,
  });
  // Nothing listens where the worker asks.
  if (words[0] === 'worker') expect([ran.code, ran.stderr]).toEqual([1, expect.stringContaining('no Redis answers')]);
  else if (words[0] !== 'conformance' && !stopped)
    expect({ code: ran.code, stderr: ran.code === 0 ? '' : ran.stderr }).toEqual({ code: 0, stderr: '' });
  check(ran, words[0] === 'pull' ? [new URL(hub.endpoint).host] : words[0] === 'worker' ? ['127.0.0.1:9'] : []);
});

test.skipIf(!hasStrace)('a program that imports the library', async () => {
  writeFileSync(
    join(project.folder, 'ask.js'),
    `import { loadModel, unedited } from 'visedit';
    const vlm = loadModel('mini-llava');
    console.log(await unedited(vlm).generate([{ image: undefined, prompt: 'What is one plus five?' }], { maxNewTokens: 2 }));
    await new Promise((resolve) => setTimeout(resolve, 2000));`,
  );
  const ran = await traced([process.execPath, join(project.folder, 'ask.js')], { cwd: here, env });
  expect(ran.code).toBe(0);
  check(ran);
});
