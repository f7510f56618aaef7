/** What people get wrong on a command line: every mistake ends with exit code 1 and a message that says what, where and what to do. */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { commands } from '../../apps/cli/commands/index.ts';
import type { CommandEntry } from '../../apps/cli/frame/command.ts';
import type { Value } from '../../apps/cli/frame/values.ts';
import { writeEdit, writeEditorWeights } from '../../src/editors/files.ts';
import { landscape } from '../../src/evaluation/probes.ts';
import { encodePng } from '../../src/figures/png.ts';
import { visedit } from './start.ts';

const dir = mkdtempSync(join(tmpdir(), 'visedit-mistakes-'));
const at = (name: string): string => join(dir, name);
afterAll(() => rmSync(dir, { recursive: true }));

beforeAll(async () => {
  const { width, height, data } = landscape({ width: 32, height: 32 });
  const png = await encodePng(width, height, data);
  writeFileSync(at('picture.png'), png);
  writeFileSync(at('cut.png'), png.subarray(0, 60));
  writeFileSync(at('text.png'), 'no picture');
  mkdirSync(at('folder'));
  copyFileSync(at('text.png'), join(at('folder'), 'some.png'));
  const record = {
    ...{ src: 'What is this?', rephrase: 'What is it?', alt: 'cat', image: 'lost.png', image_rephrase: 'lost.png' },
    ...{ loc: 'one', loc_ans: 'two', m_loc: 'lost.png', m_loc_q: 'Is it red?', m_loc_a: 'no' },
  };
  writeFileSync(at('lost.json'), JSON.stringify([record]));
  writeFileSync(at('empty.json'), '[]');
  writeFileSync(at('broken.json'), '[{');
  const of = { editor: 'vead', model: { name: 'another', fingerprint: 'f0' }, settings: {}, tensors: new Map() };
  writeEdit(at('edit.safetensors'), { ...of, request: { prompt: 'What?', target: 'cat' } });
  writeEditorWeights(at('weights.safetensors'), of);
});

async function leaves(
  registry: Record<string, CommandEntry>,
  before: readonly string[] = [],
): Promise<[string, Value<unknown>][]> {
  const found: [string, Value<unknown>][] = [];
  for (const [name, { load }] of Object.entries(registry)) {
    const { command } = await load();
    const words = [...before, name];
    if ('commands' in command) found.push(...(await leaves(command.commands, words)));
    else
      for (const [option, value] of Object.entries({ ...command.arguments, ...command.options }))
        found.push([`${words.join(' ')} ${option}`, value]);
  }
  return found;
}
const values = await leaves(commands);
const message = (value: Value<unknown>, given: string): string => {
  try {
    value.parse(given);
    return 'taken';
  } catch (error) {
    return (error as Error).message;
  }
};

test.each(values.filter(([, { placeholder }]) => placeholder === 'FILE'))('%s: a folder is no file', (_, value) => {
  expect(message(value, at('folder'))).toMatch(/^(is a folder; give the name of a file|has the wrong ending)/);
  expect(message(value, join(at('text.png'), 'x.svg'))).toMatch(
    /^(does not exist; check|cannot be written: .* is a file|has the)/,
  );
});

test.each(values.filter(([, { placeholder }]) => placeholder === 'DIR'))('%s: a file is no folder', (_, value) => {
  expect(message(value, at('text.png'))).toBe('is a file; give the name of a folder');
  expect(message(value, join(at('text.png'), 'x'))).toMatch(/^(does not exist; check|cannot be written: .* is a file; choose)/);
});

const mini = ['--model', 'mini-llava'];
const ask = ['generate', ...mini, '--prompt', 'What is this?'];
const edit = ['edit', ...mini, '--image', 'picture.png', '--prompt', 'What?', '--target', 'cat', '--out', 'x.safetensors'];
const measure = ['evaluate', ...mini, '--images', 'folder', '--out', 'out', '--editor'];

test.each<[string, readonly string[], RegExp]>([
  ['a model that is not there', ['inspect', 'nothing'], /no model at .*nothing; give a folder, or one of: mini-llava/],
  ['a model that is a file', ['inspect', 'text.png'], /text\.png is a file; a model is the folder that holds its config\.json/],
  ['a model without a configuration', ['inspect', 'folder'], /folder has no config\.json; a model is a folder with/],
  ['a picture that is none', [...ask, '--image', 'text.png'], /text\.png is not a picture; a PNG, JPEG/],
  ['a picture that is cut off', [...ask, '--image', 'cut.png'], /cut\.png is damaged or cut off/],
  [
    'an edit of another model',
    [...ask, '--edit', 'edit.safetensors'],
    /edit\.safetensors was made for another .*use the model it was made for/,
  ],
  [
    'weights given as an edit',
    [...ask, '--edit', 'weights.safetensors'],
    /is not an edit, .*; it holds weights of the editor vead/,
  ],
  ['a picture given as an edit', [...ask, '--edit', 'picture.png'], /picture\.png is not a safetensors file/],
  [
    'an edit given as weights',
    [...edit, '--editor', 'vead', '--weights', 'edit.safetensors'],
    /not an editor's weights, .*; it holds an edit/,
  ],
  [
    'weights that are missing',
    [...edit, '--editor', 'serac'],
    /comes without weights of serac .*about 1 minute[\s\S]*world build[\s\S]*visedit train serac --model mini-llava --data/,
  ],
  ['an empty data set', [...measure, 'ft-l', '--data', 'empty.json'], /empty\.json holds no records; a list of at least one/],
  [
    'a data set that is no JSON',
    [...measure, 'ft-l', '--data', 'broken.json'],
    /broken\.json is not valid JSON: line 1, column 3/,
  ],
  [
    'pictures that are missing',
    [...measure, 'ft-l', '--data', 'lost.json'],
    /3 problems[\s\S]*no image lost\.png[\s\S]*None of the pictures is in/,
  ],
  [
    'a site that needs a picture',
    ['trace', ...mini, '--prompt', 'What?', '--sites', 'visual', '--out', 't.safetensors'],
    /without a picture there are/,
  ],
  ['words without quotes', ['generate', ...mini, '--prompt', 'What', 'is', 'this?'], /put quotes around a value that has spaces/],
  ['the help of no command', ['generat', '--help'], /unknown command 'generat'; did you mean generate\?/],
  [
    'a server of an empty data set',
    ['serve', ...mini, '--port', '0', '--data', 'empty.json', '--images', 'folder'],
    /^visedit serve: empty\.json holds no records/,
  ],
  [
    'a server of no model',
    ['serve', '--model', 'nothing', '--port', '0'],
    /^visedit serve: no model at .*nothing; give a folder, or one of/,
  ],
])('%s', async (_, words, expected) => {
  const { code, stdout, stderr } = await visedit(words, { cwd: dir });
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(expected);
  expect(stderr).not.toMatch(/\n\s+at |ENOENT|ENOTDIR|EISDIR|undefined/);
});
