/**
 * Sections of hand-written pages that are made from the code and the committed results: between `<!-- EDITOR name -->`, `<!-- SETTINGS name -->`,
 * `<!-- SIZES name -->`, `<!-- PROGRAM path -->` or `<!-- RESULTS table -->` and `<!-- end -->`. What stands outside is kept.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { editorTable } from './editors.ts';
import { fenced } from './markdown.ts';
import { sizesTable } from './models.ts';
import { resultsTable } from './results.ts';
import { settingsTable } from './settings.ts';

const makers: Readonly<Record<string, (what: string, root: string) => string | Promise<string>>> = {
  EDITOR: editorTable,
  SETTINGS: settingsTable,
  SIZES: sizesTable,
  RESULTS: resultsTable,
  PROGRAM: (path, root) => fenced('ts', readFileSync(join(root, path), 'utf8')),
};

const marker = /^<!-- (EDITOR|SETTINGS|SIZES|PROGRAM|RESULTS) (\S+) -->$/m;

/** A page with its sections renewed. @throws Error that names a section that is not closed */
export async function renewSections(page: string, path: string, root: string): Promise<string> {
  let done = '';
  let left = page;
  for (let found = marker.exec(left); found !== null; found = marker.exec(left)) {
    const [start, kind, what] = found as unknown as [string, string, string];
    const end = left.indexOf('<!-- end -->', found.index);
    if (end < 0) throw new Error(`${path}: the section ${kind} ${what} has no <!-- end -->; put it back`);
    done += `${left.slice(0, found.index)}${start}\n${await makers[kind]!(what, root)}\n`;
    left = left.slice(end);
  }
  return done + left;
}

/** Markdown files below a folder, with their paths from it. */
export function markdownFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((path) => path.replaceAll('\\', '/'))
    .filter((path) => path.endsWith('.md'))
    .sort();
}

/** Pages with such sections, the README among them, by their path in docs/. */
export async function sectionPages(root: string): Promise<Map<string, string>> {
  const pages = new Map<string, string>();
  for (const path of ['../README.md', ...markdownFiles(join(root, 'docs'))]) {
    const page = readFileSync(join(root, 'docs', path), 'utf8');
    if (marker.test(page)) pages.set(path, await renewSections(page, `docs/${path}`, root));
  }
  return pages;
}
