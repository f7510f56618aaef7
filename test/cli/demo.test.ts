/** The main job from a fresh process: the tour on the shipped model with the shipped adapter. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { exam } from '../../lab/pretraining/exam.ts';
import { loadModel } from '../../src/models/load.ts';
import { visedit } from './start.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-demo-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('demo answers, explains, corrects and measures', async () => {
  const out = join(folder, 'demo');
  const { code, stdout } = await visedit(['demo', '--seed', '3', '--out', out, '--json']);
  expect(code).toBe(0);
  const result = JSON.parse(stdout);
  expect(result.edit.before).not.toBe(result.edit.target);
  expect(result.queries).toHaveLength(5);
  expect(result.metrics.textLocality).toBe(1);
  expect(result.metrics.average).toBeGreaterThan(0.85);
  for (const picture of result.pictures) expect(readFileSync(join(out, picture), 'utf8')).toMatch(/^<svg/);
  expect(existsSync(join(out, 'edit.safetensors'))).toBe(true);
}, 180_000);

test('mini-llava answers fresh scenes, and cannot without their pictures', async () => {
  const vlm = loadModel('mini-llava');
  const result = await exam(vlm, { seed: 'fresh', scenes: 60, shuffled: true });
  await vlm.release();
  expect(result.overall).toBeGreaterThan(0.92);
  expect(result.shuffled!.overall).toBeLessThan(0.3);
  for (const [kind, share] of Object.entries(result.kinds))
    expect(share, kind).toBeGreaterThan(result.shuffled!.kinds[kind]! + 0.3);
}, 180_000);
