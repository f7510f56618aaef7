/** Links and pictures of README.md and docs/ lead somewhere: files exist, headings too; `npm run` names a script. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { markdownFiles } from '../../scripts/docs/sections.ts';
import { root } from '../cli/start.ts';

const pages = ['README.md', ...markdownFiles(join(root, 'docs')).map((path) => `docs/${path}`)];
const withoutCode = (page: string): string => page.replace(/^```[\s\S]*?^```$/gm, '').replace(/`[^`\n]*`/g, '');

/** Anchors as GitHub makes them of headings. */
function anchors(page: string): Set<string> {
  const seen = new Map<string, number>();
  const headings = page.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/^#{1,6} (.+)$/gm);
  const named = [...page.matchAll(/<a (?:id|name)="([^"]+)"/g)].map(([, name]) => name!);
  const made = [...headings].map(([, heading]) => {
    const text = heading!.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').trim();
    const slug = text
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\p{M}_\- ]/gu, '')
      .replaceAll(' ', '-');
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    return count === 0 ? slug : `${slug}-${count}`;
  });
  return new Set([...made, ...named]);
}

function targets(page: string): string[] {
  const text = withoutCode(page);
  return [...text.matchAll(/\]\(([^)\s]+)(?:\s+"[^"]*")?\)|<img[^>]*\ssrc="([^"]+)"/g)].map(
    ([, link, picture]) => (link ?? picture)!,
  );
}

test.each(pages)('links in %s lead to files and headings that are there', (path) => {
  const page = readFileSync(join(root, path), 'utf8');
  const wrong = targets(page).filter((target) => {
    if (/^(https?|mailto):/.test(target)) return false;
    const [file, anchor] = target.split('#') as [string, string?];
    const there = file === '' ? join(root, path) : join(root, dirname(path), file);
    if (!existsSync(there)) return true;
    if (anchor === undefined) return false;
    return statSync(there).isDirectory() || !anchors(readFileSync(there, 'utf8')).has(anchor);
  });
  expect(wrong).toEqual([]);
});

test('every page is linked from another one', () => {
  const linked = new Set(
    pages.flatMap((path) =>
      targets(readFileSync(join(root, path), 'utf8'))
        .filter((target) => !/^(https?|mailto|#)/.test(target))
        .map((target) => join(dirname(path), target.split('#')[0]!)),
    ),
  );
  expect(pages.filter((path) => path !== 'README.md' && !linked.has(path))).toEqual([]);
});

test('npm scripts that the docs name are there', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
  const named = pages.flatMap((path) => [...readFileSync(join(root, path), 'utf8').matchAll(/\bnpm run ([a-z][\w:-]*)/g)]);
  expect(named.map(([, script]) => script!).filter((script) => scripts[script] === undefined)).toEqual([]);
});
