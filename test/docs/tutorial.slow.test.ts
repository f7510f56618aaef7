/** Pages to follow do what they say: their commands run in a fresh folder, each in a fresh process, and print what stands below them. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { root, visedit } from '../cli/start.ts';
import { fencedBlocks, shellLines, splitWords } from './shown-commands.ts';

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Equal words; numbers may differ as another processor's rounding lets them, and ids of edits are drawn. */
function sameLine(shown: string, printed: string): boolean {
  const [a, b] = [shown, printed].map((line) => line.trim().split(/\s+/)) as [string[], string[]];
  return (
    a.length === b.length &&
    a.every((word, i) => {
      const [x, y] = [Number(word), Number(b[i])];
      return (
        word === b[i] ||
        (/^edit_[0-9a-f]+$/.test(word) && /^edit_[0-9a-f]+$/.test(b[i]!)) ||
        (Number.isFinite(x) && Math.abs(x - y) <= 0.02 * Math.max(1, Math.abs(x)))
      );
    })
  );
}

/** Runs a page. A command that ends with another code than 0 says so in a comment behind it. */
async function follow(page: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-tutorial-'));
  folders.push(folder);
  let printed: string[] = [];
  let commands = 0;
  for (const { language, content } of fencedBlocks(readFileSync(join(root, 'docs', page), 'utf8'))) {
    if (language === 'sh') {
      printed = [];
      for (const line of shellLines(content)) {
        const [program, ...words] = splitWords(line);
        expect(program).toBe('visedit');
        const wanted = Number(/# exit code (\d+)$/.exec(line)?.[1] ?? 0);
        const { code, stdout, stderr } = await visedit(words, { cwd: folder });
        expect({ line, code, stderr: code === wanted ? '' : stderr }).toEqual({ line, code: wanted, stderr: '' });
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
  return folder;
}

test('docs/tutorial.md', async () => {
  const folder = await follow('tutorial.md');
  for (const file of ['modules.svg', 'maps.svg']) expect(readFileSync(join(folder, file), 'utf8')).toMatch(/^<svg/);
});

test('docs/edits.md', async () => {
  const folder = await follow('edits.md');
  expect(readFileSync(join(folder, 'edits.xml'), 'utf8')).toContain('failures="0"');
  expect(JSON.parse(readFileSync(join(folder, 'adapter', 'adapter_config.json'), 'utf8'))).toMatchObject({ peft_type: 'LORA' });
});
