/** The drawing functions run in a browser as they do in Node: they use nothing of Node. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const entry = join(root, 'src/figures/drawings.ts');

/** All own files that a file pulls in, and all packages. */
function reached(path: string, files = new Set<string>(), packages = new Set<string>()) {
  files.add(path);
  const code = readFileSync(path, 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  for (const [, name] of code.matchAll(/\b(?:from|import)\s*\(?\s*'([^']+)'/g)) {
    const next = resolve(dirname(path), name!);
    if (!name!.startsWith('.')) packages.add(name!);
    else if (!files.has(next) && existsSync(next)) reached(next, files, packages);
  }
  return { files, packages };
}

test('drawing pulls in the charts’ library and nothing else, and no file that only Node can load', () => {
  const { files, packages } = reached(entry);
  expect([...packages].sort()).toEqual(['vega', 'vega-interpreter', 'vega-lite']);
  expect([...files].filter((path) => path.endsWith('save-picture.ts'))).toEqual([]);
  expect(files.size).toBeGreaterThan(10);
});

test('with the types of a browser and none of Node, every name that drawing uses is known', () => {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-browser-'));
  try {
    const settings = {
      extends: join(root, 'tsconfig.json'),
      compilerOptions: { lib: ['ES2023', 'DOM', 'DOM.Iterable'], types: [], module: 'ESNext', moduleResolution: 'Bundler' },
      include: [],
      files: [entry],
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(settings));
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc');
    const check = () => execFileSync(process.execPath, [tsc, '-p', folder], { cwd: root, encoding: 'utf8', stdio: 'pipe' });
    expect(check()).toBe('');
    // The check can fail: a name of Node's is refused.
    writeFileSync(join(folder, 'node.ts'), 'export const bytes = Buffer.from(process.title);\n');
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ ...settings, files: [join(folder, 'node.ts')] }));
    expect(check).toThrow();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
