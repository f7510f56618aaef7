/** Sections that are made from the code and the committed results say what those say. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { sectionPages } from '../../scripts/docs/sections.ts';
import { root } from '../cli/start.ts';

test.each([...(await sectionPages(root))])('docs/%s (npm run docs)', (path, text) => {
  expect(readFileSync(join(root, 'docs', path), 'utf8')).toBe(text);
});
