/** Help, and a refusal of a command's words, come before any library is loaded that reads files or runs models: they take as long as a start of Node. */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { root } from './start.ts';

const hooks = `import { writeSync } from 'node:fs';
export const load = async (url, context, next) => { writeSync(2, 'loads ' + url + '\\n'); return next(url, context); };`;
const given = `import { register } from 'node:module'; register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(hooks)}`)});`;

test.each([
  '--help',
  'generate --help',
  'generate --no-such-option',
  'train --help',
  'edit --help',
  'evaluate --help',
  'edits add --help',
  'attribute visual --help',
])('visedit %s', (words) => {
  const { stderr } = spawnSync(
    process.execPath,
    ['--import', `data:text/javascript,${encodeURIComponent(given)}`, `${root}bin/visedit`, ...words.split(' ')],
    { encoding: 'utf8' },
  );
  const loaded = [...stderr.matchAll(/^loads (.*)$/gm)].map(([, url]) => url!);
  expect(loaded.some((url) => url.includes('apps/cli/main'))).toBe(true);
  expect(loaded.filter((url) => /node_modules\/(zod|onnxruntime|sharp|yaml|vega|hono|@hono)/.test(url))).toEqual([]);
  expect(
    loaded.filter((url) => /\/src\/(graph|nn|runtime|models\/(load|families|vlm)|ledger\/ledger|editors\/files)/.test(url)),
  ).toEqual([]);
});
