/** What an installed package must do: the library in plain Node and in strict TypeScript, the command line from any folder, the server. */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { root } from '../cli/start.ts';
import { shellLines } from '../docs/shown-commands.ts';
import { Project } from './install.ts';

let project: Project;
let elsewhere: string;
beforeAll(() => {
  project = new Project();
  elsewhere = join(project.folder, '..', 'elsewhere');
  mkdirSync(elsewhere);
});
afterAll(() => project?.remove());

const isRoot = process.getuid?.() === 0;
const nobody = 65_534;

const question = `import { loadModel, unedited } from 'visedit';

const vlm = loadModel('mini-llava', { threads: 1 });
const [said] = await unedited(vlm).generate([{ image: undefined, prompt: 'What is one plus five? The answer is:' }], { maxNewTokens: 3 });
console.log(said!.text);
await vlm.release();
`;

test('the tarball is small and holds what was compiled, no source', () => {
  expect(project.bytes).toBeLessThan(36_000_000);
  expect(existsSync(join(project.package, 'NOTICE'))).toBe(true);
  const files = readdirSync(project.package, { recursive: true, encoding: 'utf8' });
  expect(files.filter((path) => /(?<!\.d)\.tsx?$/.test(path))).toEqual([]);
  expect(existsSync(join(project.folder, 'node_modules', 'tsx'))).toBe(false);
});

test('the library runs in plain Node', async () => {
  const script = project.write('ask.js', question.replace('said!', 'said'));
  expect(await project.run([script])).toEqual({ code: 0, stdout: 'six\n', stderr: '' });
});

const uses = `${question}
import * as lab from 'visedit/lab';
import { heatMaps, lineChart } from 'visedit/figures';
import { editorNamed, figures, graph, type Edit, type Editor, type Vlm } from 'visedit';

export const model: Vlm = vlm;
export const editor: Editor = await editorNamed('vead');
export const count = (edits: readonly Edit[]): number => edits.length;
console.log(Object.keys(lab), heatMaps, lineChart, Object.keys(figures), Object.keys(graph));
`;

test.each([
  ['nodenext', ['--module', 'nodenext']],
  ['a bundler', ['--module', 'esnext', '--moduleResolution', 'bundler']],
])('a TypeScript file that uses it passes strict checks, resolved as %s does', async (_, settings) => {
  project.write('uses.ts', uses);
  expect(await project.compile('uses.ts', ...settings)).toEqual({ code: 0, stdout: '', stderr: '' });
});

/** From another folder, as a user who cannot write to the package. */
async function readOnly<T>(
  work: (options: { cwd: string; uid?: number; env: Record<string, string> }) => Promise<T>,
): Promise<T> {
  chmodSync(elsewhere, 0o777);
  if (isRoot) return work({ cwd: elsewhere, uid: nobody, env: { HOME: elsewhere } });
  execFileSync('chmod', ['-R', 'a-w', project.package]);
  try {
    return await work({ cwd: elsewhere, env: { HOME: elsewhere } });
  } finally {
    execFileSync('chmod', ['-R', 'u+w', project.package]);
  }
}

test('the command line runs from another folder; the package is not written to', async () => {
  await readOnly(async (options) => {
    const visedit = async (...words: string[]): Promise<string> => {
      const { code, stdout, stderr } = await project.run([project.command, ...words], options);
      expect({ words, code, stderr: code === 0 ? '' : stderr }).toEqual({ words, code: 0, stderr: '' });
      return stdout;
    };
    const { version } = JSON.parse(readFileSync(join(project.package, 'package.json'), 'utf8')) as { version: string };
    expect(await visedit('--version')).toBe(`${version}\n`);
    expect(await visedit('generate', '--model', 'mini-minigpt4', '--prompt', 'What is one plus five?')).toMatch(/\w/);
    await visedit('demo', '--quiet', '--out', 'tour');
    expect(readdirSync(join(elsewhere, 'tour')).filter((name) => name.endsWith('.svg'))).not.toEqual([]);

    await visedit('world', 'build', '--seed', '5', '--out', 'world', '--quiet');
    const records = ['--data', 'world/vqa_test.json', '--images', 'world/images', '--limit', '20'];
    // Processes of their own.
    const evaluation = ['evaluate', '--model', 'mini-llava', '--editor', 'vead', '--jobs', '2', '--out', 'evaluation', '--json'];
    expect(JSON.parse(await visedit(...evaluation, ...records))).toMatchObject({ count: 20 });
  });
});

test('the server answers, and its page is there', async () => {
  await readOnly(async (options) => {
    const serve = ['studio', '--model', 'mini-llava', '--port', '0', '--data-dir', 'sets'];
    const child = project.start([project.command, ...serve], options);
    let printed = '';
    try {
      const url = await new Promise<string>((resolve, reject) => {
        const read = (piece: Buffer): void => {
          printed += piece.toString();
          const [address] = /http:\/\/127\.0\.0\.1:\d+/.exec(printed) ?? [];
          if (address !== undefined) resolve(address);
        };
        child.stdout!.on('data', read);
        child.stderr!.on('data', read);
        child.on('close', (code) => reject(new Error(`the server ended with ${code}: ${printed}`)));
      });
      const page = await (await fetch(url)).text();
      const [script] = /assets\/[\w.-]+\.js/.exec(page) ?? [];
      expect((await fetch(`${url}/${script}`)).headers.get('content-type')).toMatch('javascript');
      const asked = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          model: 'mini-llava',
          max_tokens: 3,
          messages: [{ role: 'user', content: 'What is one plus five?' }],
        }),
      });
      expect(await asked.json()).toMatchObject({ choices: [{ message: { content: 'six' } }] });
      const runs = (await (await fetch(`${url}/v1/runs`)).json()) as { data: unknown[] };
      expect(runs.data.length).toBeGreaterThan(0);
    } finally {
      const ended = new Promise((resolve) => child.on('close', resolve));
      child.kill('SIGTERM');
      await ended;
    }
  });
});

test.each(['editor', 'op', 'dataset', 'model'])('docs/extending/%s.md does what it says', async (name) => {
  const page = readFileSync(join(root, 'docs/extending', `${name}.md`), 'utf8');
  let commands = 0;
  // A program's file name stands in its marker.
  const parts = page.matchAll(/^<!-- PROGRAM \S*?([\w-]+\.ts) -->\n```ts\n(.*?)^```$|^```sh\n(.*?)^```$/gms);
  for (const [, file, program, shell] of parts) {
    if (program !== undefined) project.write(file!, program);
    for (const line of shellLines(shell ?? '')) {
      const { code, stdout, stderr } = await project.shell(line);
      expect({ line, code, said: code === 0 ? '' : stdout + stderr }).toEqual({ line, code: 0, said: '' });
      commands++;
    }
  }
  expect(commands).toBeGreaterThan(4);
});

test("the engine's libraries for other systems may be deleted", async () => {
  const libraries = join(project.folder, 'node_modules', 'onnxruntime-node', 'bin', 'napi-v6');
  for (const system of readdirSync(libraries))
    for (const processor of readdirSync(join(libraries, system)))
      if (system !== process.platform || processor !== process.arch)
        rmSync(join(libraries, system, processor), { recursive: true });
  expect(await project.run(['ask.js'])).toEqual({ code: 0, stdout: 'six\n', stderr: '' });
});

test('what was installed lies there as it was', () => {
  const recent = readdirSync(project.package, { recursive: true, encoding: 'utf8' }).filter(
    (path) => statSync(join(project.package, path)).uid === nobody,
  );
  expect(recent).toEqual([]);
});
