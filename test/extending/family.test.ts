/** The seventh family: docs/extending/model.md shows one file and one line, which a copy of the sources takes literally, and a program that runs it. */
import { execFile } from 'node:child_process';
import { cpSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, expect, test } from 'vitest';
import { temporaryFolder } from '../tiny-world.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const page = readFileSync(join(root, 'docs/extending/model.md'), 'utf8');
const dir = temporaryFolder();
afterAll(() => rmSync(dir, { recursive: true }));

/** The block of code behind a phrase of the page. */
function blockAfter(phrase: string): string {
  const found = page.slice(page.indexOf(phrase)).match(/```ts\n([\s\S]*?)```/);
  if (!page.includes(phrase) || found === null) throw new Error(`docs/extending/model.md shows no code behind "${phrase}"`);
  return found[1]!;
}

const run = promisify(execFile);

test('one file and one line make a family that chats, is attributed, edited and evaluated', async () => {
  for (const folder of ['src', 'lab']) cpSync(join(root, folder), join(dir, folder), { recursive: true });
  for (const link of ['node_modules', 'models', 'package.json', 'tsconfig.json']) symlinkSync(join(root, link), join(dir, link));
  const file = blockAfter('`src/models/mosaic.ts`');
  expect(file.split('\n').length).toBeLessThan(150);
  writeFileSync(join(dir, 'src/models/mosaic.ts'), file);
  const families = join(dir, 'src/models/families.ts');
  const before = readFileSync(families, 'utf8');
  const line = blockAfter('The line in `src/models/families.ts`');
  expect(line.trim().split('\n')).toHaveLength(1);
  const after = before.replace('} as const;', `${line}} as const;`);
  writeFileSync(families, `import { mosaicFamily } from './mosaic.ts';\n${after}`);
  writeFileSync(join(dir, 'try-mosaic.ts'), blockAfter('`try-mosaic.ts`'));
  const options = { cwd: dir, env: { ...process.env, NODE_NO_WARNINGS: '1' } };
  const { stdout } = await run(process.execPath, ['--import', 'tsx', 'try-mosaic.ts'], options);
  expect(stdout.trim()).toBe('opened, chatted, attributed, edited and evaluated: 1 edit');
  const compilerOptions = { noEmit: true };
  writeFileSync(
    join(dir, 'tsconfig.family.json'),
    JSON.stringify({
      extends: './tsconfig.json',
      compilerOptions,
      include: [],
      files: ['src/models/mosaic.ts', 'try-mosaic.ts'],
    }),
  );
  const checked = await run(join(root, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.family.json'], options).catch(
    (error: { stdout: string }) => error,
  );
  expect(checked.stdout).toBe('');
}, 240_000);
