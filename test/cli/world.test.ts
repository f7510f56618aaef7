import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { visedit } from './start.ts';

const small = ['--vqa-train', '8', '--vqa-test', '4', '--caption-train', '4', '--caption-test', '2'];

test('visedit world build writes the files that its document names, the same for the same seed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-world-'));
  try {
    const [one, two] = [join(folder, 'one'), join(folder, 'two')];
    const first = await visedit(['world', 'build', '--seed', '7', '--out', one, ...small, '--json']);
    expect(first.code, first.stderr).toBe(0);
    const document = JSON.parse(first.stdout);
    expect(document).toMatchObject({ out: one, seed: '7', sizes: { vqaTrain: 8, vqaTest: 4, captionTrain: 4, captionTest: 2 } });
    expect(readdirSync(join(one, 'images')).length).toBe(document.images);
    for (const [file, count] of [
      ['vqa_train', 8],
      ['vqa_test', 4],
      ['caption_train', 4],
      ['caption_test', 2],
    ] as const) {
      expect(JSON.parse(readFileSync(join(one, `${file}.json`), 'utf8'))).toHaveLength(count);
    }

    const second = await visedit(['world', 'build', '--seed', '7', '--out', two, ...small, '--json', '--quiet']);
    expect(second.stderr).toBe('');
    expect(JSON.parse(second.stdout).hashes).toEqual(document.hashes);

    const again = await visedit(['world', 'build', '--out', one, ...small]);
    expect({ code: again.code, stdout: again.stdout }).toEqual({ code: 1, stdout: '' });
    expect(again.stderr).toMatch(/^visedit world build: .* is not empty: .*\n$/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('visedit world build refuses counts that are none before it writes anything', async () => {
  const out = join(tmpdir(), `visedit-none-${process.pid}`);
  const { code, stderr } = await visedit([
    'world',
    'build',
    '--out',
    out,
    '--vqa-train',
    '-1',
    '--vqa-test',
    '1.5',
    '--seed',
    'x',
  ]);
  expect(code).toBe(1);
  expect(stderr).toContain("--vqa-train '-1' is out of range; it must be at least 0");
  expect(stderr).toContain("--vqa-test '1.5' is not a whole number");
  expect(stderr).toContain("--seed 'x' is not a number");
  expect(existsSync(out)).toBe(false);
});
