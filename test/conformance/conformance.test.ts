/** The fixtures' checks one by one, the command as a user starts it, and fixtures that are wrong on purpose. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { Checks } from '../../lab/conformance/checks.ts';
import { fixtureModels, openFixture } from '../../lab/conformance/fixture.ts';
import { conformance } from '../../lab/conformance/run.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { generate } from '../../src/models/generate.ts';
import { loadModel } from '../../src/models/load.ts';
import { visedit } from '../cli/start.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';

const report = hasFixtures ? await conformance(fixturesDir, { threads: 1 }) : undefined;

describe.skipIf(report === undefined).each(report?.models ?? [{ model: 'no fixtures', checks: [] }])('$model', ({ checks }) => {
  test('is checked in every part', () => {
    const names = checks.map(({ name }) => name);
    const parts = [
      'tokens.',
      'pixels.',
      'embeddings',
      'hidden',
      'logits',
      'greedy.',
      'modules.',
      'visual.',
      'targets.',
      'vead.',
      'evaluation.',
      'training.',
      'live-edit.',
    ];
    expect(parts.filter((part) => !names.some((name) => name.startsWith(part)))).toEqual([]);
  });
  if (checks.length > 0)
    test.each(checks)('$name: $difference within $tolerance', ({ name, difference, tolerance, pass, message }) => {
      expect({ name, difference, pass, message }).toEqual({
        name,
        difference: expect.any(Number),
        pass: true,
        message: undefined,
      });
      expect(difference).toBeLessThanOrEqual(tolerance);
    });
});

test.skipIf(!hasFixtures).each(hasFixtures ? fixtureModels(fixturesDir) : ['none'])(
  '%s: cases of one right-padded batch say what each says alone',
  async (name) => {
    const fixture = openFixture(fixturesDir, name);
    const vlm = loadModel(fixture.folder, { threads: 1 });
    const cases = fixture.meta.cases.filter(({ image }) => image != null);
    const images = await Promise.all(cases.map(({ image }) => fixture.picture(image!)));
    const batch = await vlm.batch(cases.map(({ prompt }, i) => vlm.layout({ prompt: prompt!, image: images[i]! })));
    const said = await generate(vlm, batch, { maxNewTokens: 8, eosIds: [] });
    expect(said).toEqual(cases.map(({ greedy_ids }) => greedy_ids));
    await vlm.release();
  },
);

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

type Json = Record<string, unknown>;

/** A copy of the fixtures with one model, whose expected values are changed. */
function changed(
  model: string,
  change: { tensors?: readonly string[]; meta?: (meta: Json) => void; withoutModel?: boolean },
): string {
  const dir = mkdtempSync(join(tmpdir(), 'visedit-conformance-'));
  folders.push(dir);
  for (const shared of ['images', 'vqa_records.json']) symlinkSync(join(fixturesDir, shared), join(dir, shared));
  if (!change.withoutModel) cpSync(join(fixturesDir, model), join(dir, model), { recursive: true });
  const [from, to] = [join(fixturesDir, 'expected', model), join(dir, 'expected', model)];
  mkdirSync(to, { recursive: true });
  const meta = JSON.parse(readFileSync(join(from, 'meta.json'), 'utf8')) as Json;
  change.meta?.(meta);
  writeFileSync(join(to, 'meta.json'), JSON.stringify(meta));
  const file = openSafetensors(join(from, 'tensors.safetensors'));
  const tensors = new Map(file.names().map((name) => [name, file.readTensor(name, { as: 'float32' })]));
  for (const name of change.tensors ?? []) {
    const { data } = tensors.get(name)!;
    const place = Math.floor(data.length / 2);
    data[place] = data[place]! + 0.02;
  }
  writeSafetensors(join(to, 'tensors.safetensors'), tensors);
  return dir;
}

async function failing(dir: string): Promise<string[]> {
  const { models, failed } = await conformance(dir, { threads: 1 });
  const names = models.flatMap(({ checks }) => checks.filter(({ pass }) => !pass).map(({ name }) => name));
  expect(failed).toBe(names.length);
  return names;
}

const withFixtures = describe.skipIf(!hasFixtures);
const model = hasFixtures ? fixtureModels(fixturesDir).at(-1)! : '';

withFixtures('a fixture that is wrong in one place', () => {
  test('fails there and nowhere else', async () => {
    expect(await failing(changed(model, { tensors: ['0.hidden.1'] }))).toEqual(['hidden']);
  });

  test('or in many: each fails its own check', async () => {
    const dir = changed(model, {
      tensors: [
        '1.logits',
        'attribution.0.contribution',
        'vead.edit_signal',
        'train.0.influence_target',
        'train.0.grad.mlp_begin.weight',
        'train.final.cross_att_q_mlp.weight',
      ],
      meta: (meta) => {
        const [first] = meta.cases as { greedy_ids: number[] }[];
        first!.greedy_ids[3]! += 1;
        const [step] = (meta.training as { steps: { loss: number }[] }).steps;
        step!.loss *= 1.01;
        const [record] = (meta.evaluation as { per_record: Record<string, number>[] }).per_record;
        record!.reliability! += 0.5;
      },
    });
    expect(await failing(dir)).toEqual([
      'logits',
      'greedy.ids',
      'visual.contribution',
      'visual.contribution-own-input',
      'vead.edit-signal',
      'evaluation.records',
      'training.influence-target',
      'training.loss',
      'training.gradients',
      'training.final-weights',
    ]);
  });
});

withFixtures('parts that are missing', () => {
  test('are not checked; what is there is', async () => {
    const dir = changed(model, {
      meta: (meta) => {
        for (const part of ['vead', 'evaluation', 'training', 'visual_attribution', 'layers']) delete meta[part];
        meta.cases = (meta.cases as Json[]).slice(0, 2).map(({ prompt, image, greedy_ids }) => ({ prompt, image, greedy_ids }));
      },
    });
    const { models } = await conformance(dir, { threads: 1 });
    expect(models[0]!.checks.map(({ name }) => name)).toEqual([
      'sizes',
      'pixels.mean',
      'pixels.share',
      'embeddings',
      'hidden',
      'logits',
      'greedy.ids',
    ]);
    expect(models[0]!.checks.every(({ pass }) => pass)).toBe(true);
  });

  test('a model that cannot be opened is one failed check', async () => {
    const dir = changed(model, { withoutModel: true });
    const { models, failed } = await conformance(dir);
    expect(failed).toBe(1);
    expect(models).toEqual([
      { model, checks: [{ name: 'open', difference: null, tolerance: 0, pass: false, message: expect.stringContaining(model) }] },
    ]);
  });

  test('a part that needs one which is missing says so', async () => {
    const dir = changed(model, {
      meta: (meta) => {
        delete meta.vead;
        delete meta.evaluation;
        meta.cases = [];
        meta.visual_attribution = [];
      },
    });
    const { models } = await conformance(dir, { threads: 1 });
    expect(models[0]!.checks.filter(({ pass }) => !pass)).toMatchObject([
      { name: 'training', message: expect.stringContaining('vead') },
    ]);
  });
});

withFixtures('the command', () => {
  test('prints one JSON document and ends with 0 when all checks pass', async () => {
    const { code, stdout } = await visedit(['conformance', fixturesDir, '--model', model, '--json']);
    expect(code).toBe(0);
    const { models, passed, failed } = JSON.parse(stdout) as Awaited<ReturnType<typeof conformance>>;
    expect(models.map((one) => one.model)).toEqual([model]);
    expect({ passed, failed }).toEqual({ passed: models[0]!.checks.length, failed: 0 });
    for (const check of models[0]!.checks)
      expect(Object.keys(check).filter((key) => key !== 'note')).toEqual(['name', 'difference', 'tolerance', 'pass']);
  });

  test('prints a table and ends with 1 when one does not', async () => {
    const { code, stdout } = await visedit(['conformance', changed(model, { tensors: ['0.logits'] })]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^ logits +\S+ +2\.0e-3 +FAILED$/m);
    expect(stdout).toMatch(/^ {2}logits: largest at 0\.logits$/m);
    expect(stdout).toMatch(/\d+ checks passed, 1 failed\.\n$/);
  });

  test('refuses a folder without fixtures and a model that has none', async () => {
    const empty = await visedit(['conformance', tmpdir(), '--json']);
    expect(empty.code).toBe(1);
    expect(JSON.parse(empty.stdout)).toEqual({ error: expect.stringContaining('is not a folder of conformance fixtures') });
    const { code, stderr } = await visedit(['conformance', fixturesDir, '--model', 'no-such-model']);
    expect(code).toBe(1);
    expect(stderr).toContain('has no expected values for no-such-model');
  });
});

test('a difference that is not a number is the largest, and does not pass', () => {
  const checks = new Checks();
  checks.values('x', 1, 'a', [Number.NaN], [0]);
  checks.values('x', 1, 'b', [0.5], [0]);
  checks.values('y', 1, 'a', [1, 2], [1]);
  expect(checks.list()).toMatchObject([
    { name: 'x', difference: null, pass: false, message: 'largest at a' },
    { name: 'y', difference: null, pass: false, message: 'a: 2 values, 1 expected' },
  ]);
});
