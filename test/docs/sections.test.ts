/** Sections that are made from the code and the committed results say what those say. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readTables, renewed, sections } from '../../lab/reproduce/results-page.ts';
import { families } from '../../scripts/docs/published.ts';
import { markdownFiles, renewSections, sectionPages } from '../../scripts/docs/sections.ts';
import { editorIds } from '../../src/editors/index.ts';
import { hardKinds } from '../../src/evaluation/metrics.ts';
import { queryKinds } from '../../src/input/records.ts';
import { root } from '../cli/start.ts';

test.each([...(await sectionPages(root))])('docs/%s (npm run docs)', (path, text) => {
  expect(readFileSync(join(root, 'docs', path), 'utf8')).toBe(text);
});

test('a section that is not closed is told', async () => {
  await expect(renewSections('<!-- SIZES llava -->\nx', 'docs/x.md', root)).rejects.toThrow(
    'docs/x.md: the section SIZES llava has no',
  );
});

test('docs/results.md says what the committed cells say (visedit reproduce compare)', () => {
  const page = readFileSync(join(root, 'docs/results.md'), 'utf8');
  const results = readTables(join(root, 'results'), (warning) => expect(warning).toBe('none'));
  expect(results.cells).toHaveLength(138);
  expect(renewed(page, sections(results))).toBe(page);
}, 60_000);

const read = (path: string): string => readFileSync(join(root, 'docs', path), 'utf8');

test('every editor has a page with its record and its settings, and every page an editor', () => {
  const pages = markdownFiles(join(root, 'docs', 'editors')).filter((path) => path !== 'README.md');
  expect(pages).toEqual(editorIds.map((id) => `${id}.md`).sort());
  for (const id of editorIds) {
    for (const kind of ['EDITOR', 'SETTINGS']) expect(read(`editors/${id}.md`)).toContain(`<!-- ${kind} ${id} -->`);
    expect(read(`editors/${id}.md`)).toContain('\n## Published and here\n');
  }
});

test('every family of models has a page with its sizes', () => {
  for (const { id } of families) expect(read(`models/${id}.md`)).toContain(`<!-- SIZES ${id} -->`);
});

test('every metric has a heading', () => {
  const page = read('metrics.md');
  for (const name of [...queryKinds, ...hardKinds, 'average', 'generation', 'probability', 'unedited'])
    expect(page).toContain(`\n## ${name}\n`);
});
