/** Evaluation and training as commands: against a naive loop, across kills and stops, and with input that does not fit. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import type { EditorWeights } from '../../src/editors/editor.ts';
import { readEditorWeights, writeEditorWeights } from '../../src/editors/files.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { openJob } from '../../src/evaluation/job.ts';
import { askedOf, isLocality, type RecordResult } from '../../src/evaluation/metrics.ts';
import { readResults } from '../../src/evaluation/store.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { loadRecords, openRecords, type RecordChoice } from '../../src/input/records.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { visedit } from '../cli/start.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';
import { viseditUntil } from './kill.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
const model = at('model');
const weightsPath = at('vead.safetensors');
let world: TinyWorld;

beforeAll(async () => {
  writeRandomLlava(model, { positions: 256 });
  writeRandomLlava(at('other'), { positions: 256, seed: 'other' });
  world = await writeTinyWorld(at('world'));
  const vlm = loadModel(model, { threads: 1 });
  const records = loadRecords(world.train, world.images);
  const weights = await vead.train!(vlm, records, {
    out: at('trained'),
    seed: 1,
    steps: 3,
    batch: 4,
    settings: { ...recipeOf(vlm.decoder, 'vead').train, width: 32, influenceWidth: 24 },
  });
  writeEditorWeights(weightsPath, weights);
  await vlm.release();
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const bytes = (out: string): string[] => ['records.jsonl', 'summary.json'].map((name) => readFileSync(at(out, name), 'utf8'));

describe('evaluate', () => {
  const words = (out: string, ...more: string[]): string[] => [
    ...[
      'evaluate',
      '--model',
      model,
      '--editor',
      'vead',
      '--weights',
      weightsPath,
      '--data',
      world.test,
      '--images',
      world.images,
    ],
    ...['--batch', '3', '--max-new-tokens', '8', '--out', at(out), ...more],
  ];
  beforeAll(async () => {
    const { code, stderr } = await visedit(words('whole'));
    expect(stderr).toContain('Evaluating: 11 records');
    expect(code).toBe(0);
  });

  test('equals a naive loop, one query at a time', async () => {
    const vlm = loadModel(model, { threads: 1 });
    const weights: EditorWeights = readEditorWeights(weightsPath);
    const results = readResults(at('whole'));
    const records = loadRecords(world.test, world.images);
    expect(results.map(({ index }) => index)).toEqual(records.map(({ index }) => index));
    for (const record of records) {
      const { request } = record;
      const [edit] = await vead.edit(vlm, [{ ...request, image: await decodeImage(request.image) }], weights);
      for (const { kind, query } of askedOf(record)) {
        const asked = {
          prompt: query.prompt,
          target: query.target,
          image: query.image === null ? undefined : await decodeImage(query.image),
        };
        const [before, after] = [unedited(vlm), vead.with(vlm, [edit!])];
        const [[then], [now]] = [await before.answerTargets([asked]), await after.answerTargets([asked])];
        const [[said], [says]] = [
          await before.generate([asked], { maxNewTokens: 8 }),
          await after.generate([asked], { maxNewTokens: 8 }),
        ];
        const wanted = isLocality(kind) ? then!.predictedIds : now!.targetIds;
        const found = (results[record.index] as RecordResult).queries[kind]!;
        expect(found.accuracy).toBe(now!.predictedIds.filter((id, i) => id === wanted[i]).length / wanted.length);
        expect([found.textBefore, found.text]).toEqual([said!.text, says!.text]);
        expect(found.exact).toBe(says!.text === (isLocality(kind) ? said!.text : query.target));
        expect(found.probability[1]).toBeCloseTo(Math.exp(now!.logProbs.reduce((a, b) => a + b, 0)), 5);
      }
    }
    await vlm.release();
  });

  test('the summary is what --json prints, the manifest says how it was made', async () => {
    const { code, stdout } = await visedit([...words('whole'), '--resume', '--json']);
    expect(code).toBe(0);
    const summary = JSON.parse(readFileSync(at('whole', 'summary.json'), 'utf8')) as Record<string, unknown>;
    expect(JSON.parse(stdout)).toMatchObject(summary);
    expect(Object.keys(summary)).toEqual([
      ...[
        'reliability',
        'textGenerality',
        'modalGenerality',
        'textLocality',
        'modalLocality',
        'average',
        'count',
        'hard',
        'generation',
      ],
      ...['probability', 'unedited', 'kinds', 'edits'],
    ]);
    expect(summary).toMatchObject({ textLocality: 1, count: 11 });
    const manifest = JSON.parse(readFileSync(at('whole', 'manifest.json'), 'utf8')) as Record<string, unknown>;
    expect(manifest).toMatchObject({
      finished: true,
      identity: { data: { kind: 'vqa', records: 11 }, protocol: { batch: 3, maxNewTokens: 8 } },
    });
    expect(manifest.command).toContain('visedit evaluate --model');
  });

  test('killed at any moment and resumed, it ends with the same bytes', async () => {
    let kills = 0;
    const size = (): number => (existsSync(at('killed', 'records.jsonl')) ? statSync(at('killed', 'records.jsonl')).size : 0);
    for (let round = 0; round < 3; round++) {
      const before = size();
      const { hit } = await viseditUntil(words('killed', '--resume'), () => size() > before, 'SIGKILL');
      if (hit) kills++;
      // What a kill in the middle of a write leaves.
      writeFileSync(at('killed', 'records.jsonl'), '{"index":7,"target":"a', { flag: 'a' });
    }
    expect(kills).toBeGreaterThan(0);
    expect((await visedit(words('killed', '--resume'))).code).toBe(0);
    expect(bytes('killed')).toEqual(bytes('whole'));
    expect(readdirSync(at('killed')).sort()).toEqual(['manifest.json', 'records.jsonl', 'summary.json']);
  });

  test('two processes give the same bytes, also when killed half-way', async () => {
    const parts = (): number =>
      readdirSync(at('jobs')).reduce((sum, name) => sum + (name.includes('part') ? statSync(at('jobs', name)).size : 0), 0);
    await viseditUntil(words('jobs', '--jobs', '2'), () => existsSync(at('jobs')) && parts() > 0, 'SIGKILL');
    const { code, stderr } = await visedit(words('jobs', '--jobs', '2', '--resume'));
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
    expect(bytes('jobs')).toEqual(bytes('whole'));
  });

  test('Ctrl-C says how to go on and keeps what is finished', async () => {
    const { code, hit, stderr } = await viseditUntil(
      words('stopped'),
      () => existsSync(at('stopped', 'records.jsonl')),
      'SIGINT',
    );
    if (hit) {
      expect(code).toBe(130);
      expect(stderr).toContain('--resume to go on');
    }
    expect((await visedit(words('stopped', '--resume'))).code).toBe(0);
    expect(bytes('stopped')).toEqual(bytes('whole'));
  });

  test('results are never mixed or overwritten', async () => {
    const again = await visedit(words('whole'));
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('holds results already; go on with --resume');
    const other = await visedit([...words('whole', '--resume'), '--limit', '5']);
    expect(other.stderr).toContain('data.evaluated: there 11, here 5');
    expect(bytes('whole')[0]!.split('\n')).toHaveLength(12);
  });

  test('weights of another model, of no editor, or none at all are refused', async () => {
    const job = {
      model,
      editor: 'vead',
      weights: weightsPath,
      data: world.test,
      images: world.images,
      batch: 3,
      maxNewTokens: 8,
    };
    await expect(openJob({ ...job, model: at('other') })).rejects.toThrow(
      /vead\.safetensors was made for model \(\w{12}\), not for other/,
    );
    await expect(openJob({ ...job, weights: join(model, 'model.safetensors') })).rejects.toThrow("is not an editor's weights");
    await expect(openJob({ ...job, weights: undefined })).rejects.toThrow('comes without weights of vead for vqa data');
    mkdirSync(join(model, 'editors'));
    copyFileSync(weightsPath, join(model, 'editors', 'vead-vqa.safetensors'));
    expect((await openJob({ ...job, weights: undefined })).identity.editor.weights!.file).toBe('vead-vqa.safetensors');
    rmSync(join(model, 'editors'), { recursive: true });
  });

  test('records that cannot be asked are named before the work', async () => {
    const list = JSON.parse(readFileSync(world.test, 'utf8')) as Record<string, string>[];
    list[4]!.alt = 'a '.repeat(300);
    writeFileSync(at('vqa_long.json'), JSON.stringify(list));
    const long = await visedit(words('long').map((word) => (word === world.test ? at('vqa_long.json') : word)));
    expect(long.code).toBe(1);
    expect(long.stderr).toContain('record 4, reliability: the input has');
    const images = await visedit(words('long').map((word) => (word === world.images ? model : word)));
    expect(images.stderr).toContain('record 0: image: there is no image vqa_test_00000.png');
  });
});

describe('train', () => {
  const words = (out: string, ...more: string[]): string[] => [
    ...[
      'train',
      'vead',
      '--model',
      model,
      '--data',
      world.train,
      '--images',
      world.images,
      '--steps',
      '120',
      '--batch',
      '4',
      '--threads',
      '1',
    ],
    ...['--set', 'width=32', '--set', 'influenceWidth=24', '--out', at(out), ...more],
  ];
  const made = (out: string): Buffer[] =>
    ['weights.safetensors', 'checkpoint.safetensors'].map((name) => readFileSync(at(out, name)));
  const whole = async (): Promise<Buffer[]> => {
    if (!existsSync(at('train-whole'))) expect((await visedit(words('train-whole'))).code).toBe(0);
    return made('train-whole');
  };

  test('killed after a checkpoint and resumed, it ends with the same bytes', async () => {
    const { hit } = await viseditUntil(
      words('train-killed'),
      () => existsSync(at('train-killed', 'checkpoint.safetensors')),
      'SIGKILL',
    );
    expect(hit).toBe(true);
    const over = await visedit(words('train-killed'));
    expect(over.stderr).toContain('holds a training already; go on with --resume');
    const { code, stdout } = await visedit([...words('train-killed', '--resume'), '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ editor: 'vead', steps: 120, records: 12, settings: { width: 32 } });
    expect(made('train-killed')).toEqual(await whole());
  });

  test('Ctrl-C saves, says how to go on, and the resumed run ends with the same bytes', async () => {
    const { code, stderr } = await viseditUntil(
      words('train-stopped'),
      () => existsSync(at('train-stopped', 'checkpoint.safetensors')),
      'SIGINT',
    );
    expect(code).toBe(130);
    expect(stderr).toMatch(/stopped after step \d+\. Run the same command with --resume to go on\./);
    expect((await visedit(words('train-stopped', '--resume'))).code).toBe(0);
    expect(made('train-stopped')).toEqual(await whole());
  });

  test('other data or settings are not mixed into a run', async () => {
    await whole();
    const other = await visedit(words('train-whole', '--resume', '--seed', '9'));
    expect(other.stderr).toContain('seed: there "0", here "9"');
  });

  test('a loss that is not finite and a layer out of range are told', async () => {
    const loss = await visedit(words('train-broken', '--lr', '1e12', '--set', 'clip=1e30', '--set', 'muonRate=1e12'));
    expect(loss.code).toBe(1);
    expect(loss.stderr).toMatch(/step 2: the loss is .*; weights of step 1 are kept.*; no checkpoint had been written yet/);
    const layer = await visedit(words('train-layer', '--layer', '3'));
    expect(layer.stderr).toContain('the setting layer of vead must be a whole number from 0 to 2');
  });
});

describe('edit', () => {
  const words = (...more: string[]): string[] => {
    const picture = join(world.images, 'vqa_test_00000.png');
    return [
      'edit',
      '--model',
      model,
      '--editor',
      'vead',
      '--weights',
      weightsPath,
      '--image',
      picture,
      '--out',
      at('edit.safetensors'),
      ...more,
    ];
  };

  test('writes an edit file and says what changed', async () => {
    const { code, stdout } = await visedit(
      words('--prompt', 'What is this?', '--target', 'a cat', '--max-new-tokens', '4', '--json'),
    );
    const { took, before, after, prompt } = JSON.parse(stdout) as {
      took: boolean;
      before: { probability: number };
      after: { probability: number };
      prompt: string;
    };
    expect(code).toBe(took ? 0 : 2);
    expect(prompt).toBe('What is this?');
    expect(after.probability).not.toBe(before.probability);
    expect(existsSync(at('edit.safetensors'))).toBe(true);
  });

  test('an empty prompt or target, and a picture that is none', async () => {
    const empty = await visedit(words('--prompt', ' ', '--target', ''));
    expect(empty.stderr).toContain("--prompt ' ' is empty");
    expect(empty.stderr).toContain("--target '' is empty");
    writeFileSync(at('no.png'), 'no picture');
    const none = await visedit(
      words('--prompt', 'What?', '--target', 'a cat').map((word) => (word.endsWith('.png') ? at('no.png') : word)),
    );
    expect(none.stderr).toContain('is not a picture');
  });
});

test('a limit takes the first records, or with a seed a choice that the seed decides', () => {
  const chosen = (choice: RecordChoice) => openRecords(world.test, world.images, choice).records.map(({ index }) => index);
  expect(chosen({ limit: 3 })).toEqual([0, 1, 2]);
  const drawn = chosen({ limit: 5, seed: 7 });
  expect(drawn).toHaveLength(5);
  expect(drawn).toEqual([...drawn].sort((a, b) => a - b));
  expect(chosen({ limit: 5, seed: 7 })).toEqual(drawn);
  expect(chosen({ limit: 50 })).toHaveLength(11);
});
