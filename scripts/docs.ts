/** `npm run docs`: writes the pages and sections of docs/ that are made from the code. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { apiEntries, apiPages } from './docs/api.ts';
import { commandPages } from './docs/commands.ts';
import { sectionPages } from './docs/sections.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
for (const pages of [await commandPages(), await sectionPages(root), apiPages(apiEntries(root))]) {
  for (const [path, text] of pages) {
    const file = join(root, 'docs', path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}
