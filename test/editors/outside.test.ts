/** Editors from outside: what may name one, what is refused, and that edit files never load code. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { visedit } from '../cli/start.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-outside-'));
const write = (name: string, text: string): void => {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), text);
};

const start = `import { editorNamed } from 'visedit';
const ftL = await editorNamed('ft-l');
const as = (editor) => (edit) => ({ ...edit, editor });
`;

/** FT-L under another name. */
const exported = (id: string, name = 'mine'): string => `export const ${name} = {
  ...ftL,
  id: ${JSON.stringify(id)},
  sequence: undefined,
  edit: async (...words) => (await ftL.edit(...words)).map(as(${JSON.stringify(id)})),
  with: (vlm, edits) => ftL.with(vlm, edits.map(as('ft-l'))),
  chain: (vlm, edits) => ftL.chain(vlm, edits.map(as('ft-l'))),
};
`;

beforeAll(async () => {
  writeRandomLlava(join(folder, 'tiny'), { positions: 256 });
  const { data, width, height } = randomPicture('outside');
  await sharp(data, { raw: { width, height, channels: 3 } }).toFile(join(folder, 'picture.png'));
  write('mine.mjs', `${start}${exported('mine')}`);
  write('two.mjs', `${start}${exported('one', 'one')}${exported('two', 'two')}`);
  write('taken.mjs', `${start}${exported('vead')}`);
  write('odd.mjs', `${start}${exported('../odd')}`);
  write('none.mjs', 'export const editor = { id: "none" };');
  write('broken.mjs', 'import "nothing-of-that-name";');
  write(
    'node_modules/@some/editors/package.json',
    '{ "name": "@some/editors", "type": "module", "exports": { ".": { "import": "./index.js" } } }',
  );
  write('node_modules/@some/editors/index.js', `${start}${exported('theirs')}export default mine;`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const about = ['--model', 'tiny', '--image', 'picture.png', '--prompt', 'What is there?'];
const edit = (editor: string, out = 'edit.safetensors') =>
  visedit(['edit', ...about, '--editor', editor, '--target', 'pizza', '--probes', 'none', '--json', '--out', out], {
    cwd: folder,
  });

test.each([
  ['./mine.mjs', 'mine'],
  ['two.mjs#two', 'two'],
  ['@some/editors', 'theirs'],
])('--editor %s', async (reference, id) => {
  const { stdout, stderr } = await edit(reference, `${id}.safetensors`);
  expect(JSON.parse(stdout), stderr).toMatchObject({ editor: id });
});

test.each([
  ['./two.mjs', 'exports the editors one, two; choose one as ./two.mjs#one'],
  ['./mine.mjs#other', 'exports the editors mine; choose one'],
  ['./taken.mjs', 'there is another editor "vead"'],
  ['./odd.mjs', `"../odd" cannot be an editor's id`],
  ['./none.mjs', 'exports no editor, which is an object with id, summary,'],
  ['./broken.mjs', "cannot be loaded: Cannot find package 'nothing-of-that-name'"],
  ['./missing.mjs', 'there is no module ./missing.mjs'],
  ['vaed', "'vaed' is not one of: dual-edit, ft-l"],
  ['some-package', "'some-package' is not one of: dual-edit, ft-l"],
])('--editor %s is refused', async (reference, message) => {
  const { code, stderr } = await edit(reference, 'refused.safetensors');
  expect(stderr).toContain(message);
  expect(code).toBe(1);
});

test('an edit of an outside editor answers once its module is named; the file alone loads nothing', async () => {
  const answered = ['generate', ...about, '--max-new-tokens', '2', '--edit', 'mine.safetensors'];
  const alone = await visedit(answered, { cwd: folder });
  expect([alone.code, alone.stderr]).toEqual([1, expect.stringContaining('there is no editor "mine"')]);
  expect((await visedit([...answered, '--editor', './mine.mjs'], { cwd: folder })).code).toBe(0);
});
