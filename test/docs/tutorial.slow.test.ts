/** The tutorial does what it says: its commands run in a fresh folder, each in a fresh process, and print what stands below them. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { root, visedit } from '../cli/start.ts';
import { fencedBlocks, shellLines, splitWords } from './shown-commands.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-tutorial-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Equal words; numbers may differ as another processor's rounding lets them. */
function sameLine(shown: string, printed: string): boolean {
  const [a, b] = [shown, printed].map((line) => line.trim().split(/\s+/)) as [string[], string[]];
  return (
    a.length === b.length &&
    a.every((word, i) => {
      const [x, y] = [Number(word), Number(b[i])];
      return word === b[i] || (Number.isFinite(x) && Math.abs(x - y) <= 0.02 * Math.max(1, Math.abs(x)));
    })
  );
}

test('docs/tutorial.md', async () => {
  let printed: string[] = [];
  let commands = 0;
  for (const { language, content } of fencedBlocks(readFileSync(join(root, 'docs', 'tutorial.md'), 'utf8'))) {
    if (language === 'sh') {
      printed = [];
      for (const line of shellLines(content)) {
        const [program, ...words] = splitWords(line);
        expect(program).toBe('visedit');
        const { code, stdout, stderr } = await visedit(words, { cwd: folder });
        expect({ line, code, stderr: code === 0 ? '' : stderr }).toEqual({ line, code: 0, stderr: '' });
        printed.push(...stdout.split('\n'));
        commands++;
      }
    } else if (language === 'text') {
      const missing = content
        .trimEnd()
        .split('\n')
        .filter((line) => !printed.some((one) => sameLine(line, one)));
      expect({ missing, printed: missing.length > 0 ? printed : [] }).toEqual({ missing: [], printed: [] });
    }
  }
  expect(commands).toBeGreaterThan(10);
  for (const file of ['modules.svg', 'maps.svg']) expect(readFileSync(join(folder, file), 'utf8')).toMatch(/^<svg/);
});
