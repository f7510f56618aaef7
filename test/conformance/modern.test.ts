/** Every check of every folder of the modern families' fixtures, in both layouts, and folders that are wrong on purpose. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { conformance } from '../../lab/conformance/run.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { hasFixtures, sharedDir } from '../shared.ts';

const fixtures = join(sharedDir, 'fixtures-modern');
// In CI, and wherever the older fixtures are, these must be there too.
const report = hasFixtures ? await conformance(fixtures, { threads: 1 }) : undefined;

/** What every family is checked in, and what only some have. */
const common = [
  ...['sizes', 'tokens.rendered', 'tokens.ids', 'tokens.spans', 'tokens.positions', 'tokens.position-delta'],
  ...[
    'pixels.mean',
    'pixels.share',
    'vision.layers',
    'vision.features',
    'embeddings',
    'hidden',
    'logits',
    'greedy.ids',
    'greedy.text',
  ],
  ...['modules.key-token', 'modules.contribution', 'visual.places', 'visual.contribution', 'visual.contribution-own-input'],
  ...['vead.tokens', 'vead.edit-signal', 'vead.gate', 'vead.adapted', 'vead.logits', 'vead.dropped', 'targets.ids'],
  ...['evaluation.target-ids', 'evaluation.ids-before', 'evaluation.ids-after', 'evaluation.records', 'evaluation.mean'],
  ...['training.influence-target', 'training.loss', 'training.parts', 'training.gradients'],
];
const special: Readonly<Record<string, readonly string[]>> = {
  gemma3: ['masks', 'visual.contribution-residual'],
  qwen3_vl: ['vision.deepstack', 'grid.merged'],
  qwen2_5_vl: ['grid.merged'],
  smolvlm: ['grid.tiles'],
  internvl: ['grid.tiles'],
};

describe.skipIf(report === undefined).each(report?.models ?? [{ model: 'no fixtures', checks: [] }])(
  '$model',
  ({ model, checks }) => {
    test('is checked in every part', () => {
      const names = checks.map(({ name }) => name);
      const family = Object.keys(special).find((one) => model.startsWith(`tiny-${one}`));
      expect([...common, ...(family === undefined ? [] : special[family]!)].filter((name) => !names.includes(name))).toEqual([]);
    });
    test.each(checks)('$name: $difference within $tolerance', ({ name, difference, tolerance, pass, message }) => {
      expect({ name, difference, pass, message }).toEqual({
        name,
        difference: expect.any(Number),
        pass: true,
        message: undefined,
      });
      expect(difference).toBeLessThanOrEqual(tolerance);
    });
  },
);

test.skipIf(!hasFixtures)('every folder of the fixtures is one of the layouts that are checked', () => {
  const folders = readdirSync(fixtures).filter((name) => name.startsWith('tiny-'));
  expect(report!.models.map(({ model }) => model).sort()).toEqual(folders.sort());
});

const dir = mkdtempSync(join(tmpdir(), 'visedit-modern-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

type Json = Record<string, unknown>;

test.skipIf(!hasFixtures)(
  'wrong values fail their own checks; a folder that cannot be opened fails by its name beside those that can',
  async () => {
    const name = 'tiny-smolvlm';
    symlinkSync(join(fixtures, 'images'), join(dir, 'images'));
    cpSync(join(fixtures, name), join(dir, name), { recursive: true });
    const [from, to] = [join(fixtures, 'expected', name), join(dir, 'expected', name)];
    mkdirSync(to, { recursive: true });
    const meta = JSON.parse(readFileSync(join(from, 'meta.json'), 'utf8')) as Json;
    meta.layouts = [name, 'tiny-not-there'];
    const [, second] = meta.cases as { rendered: string; position_ids: number[][]; greedy_ids: number[] }[];
    second!.rendered += ' ';
    second!.position_ids[0]![5]! += 1;
    const [answers] = (meta.evaluation as { queries: Record<string, { after_ids: number[] }>[] }).queries;
    answers!.reliability!.after_ids[0]! += 1;
    writeFileSync(join(to, 'meta.json'), JSON.stringify(meta));
    const file = openSafetensors(join(from, 'tensors.safetensors'));
    const tensors = new Map(file.names().map((key) => [key, file.readTensor(key, { as: 'float32' })]));
    for (const key of ['1.vision.1', '1.features', 'vead.gate', 'train.grad.mlp_begin.weight']) {
      const { data } = tensors.get(key)!;
      data[data.length >> 1]! += 0.02;
    }
    writeSafetensors(join(to, 'tensors.safetensors'), tensors);
    const { models, failed } = await conformance(dir, { threads: 1 });
    expect(models.map(({ model }) => model)).toEqual([name, 'tiny-not-there']);
    const failing = models.map(({ checks }) => checks.filter(({ pass }) => !pass).map((check) => check.name));
    expect(failing).toEqual([
      [
        ...['tokens.rendered', 'tokens.positions', 'vision.layers', 'vision.features', 'vead.gate'],
        ...['evaluation.ids-after', 'training.gradients'],
      ],
      ['open'],
    ]);
    expect(failed).toBe(8);
  },
);
