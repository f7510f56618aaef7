/** The library's reference is what the code says, and says what one needs of every export. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { apiEntries, apiPages, sourceOf } from '../../scripts/docs/api.ts';
import { root } from '../cli/start.ts';

const entries = apiEntries(root);
const named = ({ namespace, name }: { namespace: string | undefined; name: string }): string =>
  namespace === undefined ? name : `${namespace}.${name}`;

test.each([...apiPages(entries)])('docs/%s is up to date (npm run docs)', (path, text) => {
  expect(readFileSync(join(root, 'docs', path), 'utf8')).toBe(text);
});

test('every export has a doc comment that says what it is', () => {
  expect(entries.length).toBeGreaterThan(150);
  expect(entries.filter(({ comment }) => comment === '' || comment.startsWith('@')).map(named)).toEqual([]);
});

test('a function that throws says when', () => {
  const functions = entries.filter(({ signature }) => /^(async )?function |^const /.test(signature));
  const silent = functions.filter((entry) => /\bthrow new\b/.test(sourceOf(root, entry)) && !/@throws/.test(entry.comment));
  expect(silent.map(named)).toEqual([]);
});

test('a function that returns a node or a tensor says its shape', () => {
  const functions = entries.filter(({ signature }) => /(=> |\): )(Node|Tensor\b[^;]*);$/.test(signature));
  expect(functions.length).toBeGreaterThan(50);
  const silent = functions.filter(
    ({ comment }) => !/\[[^\]]*\]|shape|scalar|element|dimension|axis|axes|graph|node/i.test(comment),
  );
  expect(silent.map(named)).toEqual([]);
});
