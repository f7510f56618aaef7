/** The shape of the code base: imports point one way, the platform is in two files, files stay short. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** From the ground up; a folder may use itself and every line above its own, nothing beside or below. */
const layers = [
  ['src/graph', 'src/random.ts', 'src/recent.ts'],
  ['src/files', 'src/figures'],
  ['src/onnx', 'src/input'],
  ['src/runtime'],
  ['src/nn'],
  ['src/models'],
  ['src/attribution'],
  ['src/editors'],
  ['src/evaluation'],
  ['src/ledger'],
  ['src/index.ts'],
  ['lab/recipes.ts'],
  ['lab/world'],
  ['lab/pretraining'],
  ['lab/conformance', 'lab/reproduce', 'lab/contract.ts'],
  ['lab/index.ts'],
  ['apps/server', 'apps/queue'],
  ['apps/cli'],
];

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return /^(node_modules|dist.*)$/.test(entry.name) ? [] : files(path);
    return /\.(ts|tsx|mjs)$/.test(entry.name) ? [path] : [];
  });
}

function importsOf(path: string): string[] {
  const code = readFileSync(path, 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  return [...code.matchAll(/\b(?:from|import)\s*\(?\s*'([^']+)'/g)].map((found) => found[1] ?? '');
}

const nameOf = (path: string) => relative(root, path).split(sep).join('/');
const sources = ['src', 'lab', 'apps/server', 'apps/queue', 'apps/cli']
  .flatMap((folder) => files(join(root, folder)))
  .map((path) => ({ path, name: nameOf(path), imports: importsOf(path) }));
const roomOf = (name: string) => name.split('/').slice(0, 2).join('/');
const level = (room: string) => layers.findIndex((rooms) => rooms.includes(room));

test('every folder of src/, lab/ and apps/ has its place among the layers', () => {
  const rooms = new Set(sources.map(({ name }) => roomOf(name)));
  expect([...rooms].filter((room) => level(room) < 0)).toEqual([]);
});

test('imports point one way', () => {
  const wrong: string[] = [];
  for (const { path, name, imports } of sources) {
    for (const imported of imports.filter((one) => one.startsWith('.'))) {
      const target = nameOf(resolve(dirname(path), imported));
      if (target.startsWith('assets/')) continue;
      const [from, to] = [roomOf(name), roomOf(target)];
      if (from !== to && level(to) >= level(from)) wrong.push(`${name} -> ${target}`);
    }
  }
  expect(wrong).toEqual([]);
});

test('figures take plain data: they use nothing else of ours', () => {
  const outside = sources
    .filter(({ name }) => roomOf(name) === 'src/figures')
    .flatMap(({ imports }) => imports.filter((one) => one.startsWith('../')));
  expect(outside).toEqual([]);
});

test('only src/runtime/node.ts and src/runtime/web.ts know ONNX Runtime', () => {
  const users = sources.filter(({ imports }) => imports.some((one) => one.startsWith('onnxruntime'))).map(({ name }) => name);
  expect(users.filter((name) => name !== 'src/runtime/node.ts' && name !== 'src/runtime/web.ts')).toEqual([]);
});

test('JSON and YAML of files and of the network are read in one place each, which limits depth and names the place of a fault', () => {
  const readers = sources.flatMap(({ path, name }) =>
    /\bJSON\.parse\(|from 'yaml'/.test(readFileSync(path, 'utf8')) ? [name] : [],
  );
  // Bodies of requests have limits of their own; respond.ts and figure.ts read what they wrote a moment before.
  expect(readers.sort()).toEqual([
    'apps/server/http/json.ts',
    'apps/server/routes/respond.ts',
    'lab/reproduce/figures/figure.ts',
    'src/files/json.ts',
    'src/files/yaml.ts',
  ]);
});

test('imports of own files end in .ts', () => {
  const wrong = sources.flatMap(({ name, imports }) =>
    imports.filter((one) => one.startsWith('.') && !/\.(ts|json)$/.test(one)).map((one) => `${name} -> ${one}`),
  );
  expect(wrong).toEqual([]);
});

test('the studio uses of the library what browsers may import, and nothing else', () => {
  const studio = join(root, 'apps/studio/src');
  const outside = files(studio).flatMap((path) =>
    importsOf(path)
      .filter((one) => one.startsWith('.') && !resolve(dirname(path), one).startsWith(studio))
      .map((one) => relative(root, resolve(dirname(path), one.replace(/\?url$/, '')))),
  );
  expect(outside.filter((path) => !path.startsWith(join('src', 'figures', 'fonts')))).toEqual([]);
});

describe.each(['src', 'lab', 'apps', 'test', 'scripts', 'bench', 'examples'])('%s/', (folder) => {
  test('has no file above 500 lines', () => {
    const there = statSync(join(root, folder), { throwIfNoEntry: false })?.isDirectory() ?? false;
    const long = (there ? files(join(root, folder)) : [])
      .map((path) => ({ path: relative(root, path), lines: readFileSync(path, 'utf8').split('\n').length - 1 }))
      .filter(({ lines }) => lines > 500);
    expect(long).toEqual([]);
  });
});
