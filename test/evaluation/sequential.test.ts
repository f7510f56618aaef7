/** Sequential editing against edits that are chained by hand. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import type { Edit, EditRequest } from '../../src/editors/editor.ts';
import { writeEditorWeights } from '../../src/editors/files.ts';
import { ftL } from '../../src/editors/ft-l.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { askedOf, type RecordResult } from '../../src/evaluation/metrics.ts';
import { runSequential, sequentialPoints, underAll } from '../../src/evaluation/sequential.ts';
import { readResults } from '../../src/evaluation/store.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { loadRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import { visedit } from '../cli/start.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { type TinyWorld, temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const at = (...parts: string[]): string => join(root, ...parts);
const model = at('model');
let world: TinyWorld;
const job = (editor: string, weights?: string) => ({
  model,
  editor,
  weights,
  data: world.test,
  images: world.images,
  batch: 2,
  maxNewTokens: 4,
});

beforeAll(async () => {
  writeRandomLlava(model, { positions: 256 });
  world = await writeTinyWorld(at('world'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

test('points are powers of ten and the number itself', () => {
  expect(sequentialPoints(1)).toEqual([1]);
  expect(sequentialPoints(10)).toEqual([1, 10]);
  expect(sequentialPoints(250)).toEqual([1, 10, 100, 250]);
});

test.each(['ft-l', 'vead'])('%s: every point equals the chain of the edits so far, made one by one', async (id) => {
  const editor = id === 'vead' ? vead : ftL;
  const vlm = loadModel(model, { threads: 1 });
  const weights =
    id === 'vead'
      ? await vead.train!(vlm, loadRecords(world.train, world.images), {
          out: at('trained'),
          seed: 1,
          steps: 3,
          batch: 4,
          settings: { ...recipeOf(vlm.decoder, 'vead').train, width: 32, influenceWidth: 24 },
        })
      : undefined;
  const path = at('weights.safetensors');
  if (weights !== undefined) writeEditorWeights(path, weights);
  const { points, manifest } = await runSequential(job(id, weights === undefined ? undefined : path), 3, {
    out: at(id),
    threads: 1,
  });
  expect(points.map(({ edits }) => edits)).toEqual([1, 3]);
  const madeOn = id === 'vead' ? 'the unedited model' : 'the model under the edits before';
  expect(manifest).toMatchObject({ finished: true, identity: { sequential: { edits: 3, madeOn } }, costs: { edits: 3 } });
  const records = loadRecords(world.test, world.images).slice(0, 3);
  const edits: Edit[] = [];
  const next =
    editor.sequence?.(vlm, weights) ?? (async (request: EditRequest) => (await editor.edit(vlm, [request], weights))[0]!);
  for (const { request } of records) edits.push(await next({ ...request, image: await decodeImage(request.image) }));
  for (const n of [1, 3]) {
    const edited = n === 1 ? editor.with(vlm, [edits[0]!]) : editor.chain!(vlm, edits.slice(0, n));
    const results = readResults(at(id, `after-${n}`));
    expect(results.map(({ index }) => index)).toEqual(records.slice(0, n).map(({ index }) => index));
    for (const [i, record] of records.slice(0, n).entries()) {
      for (const { kind, query } of askedOf(record)) {
        const image = query.image === null ? undefined : await decodeImage(query.image);
        const asked = { image, prompt: query.prompt, target: query.target };
        const [[forced], [free]] = [await edited.answerTargets([asked]), await edited.generate([asked], { maxNewTokens: 4 })];
        const found = (results[i] as RecordResult).queries[kind]!;
        expect(found.text, `${kind} of record ${i} after ${n}`).toBe(free!.text);
        expect(found.probability[1]).toBeCloseTo(Math.exp(forced!.logProbs.reduce((a, b) => a + b, 0)), 5);
      }
    }
  }
  await vlm.release();
});

test('as a command: goes on after a stop with the same bytes, says what cannot be', async () => {
  const words = (...more: string[]): string[] => [
    ...['evaluate', '--model', model, '--editor', 'ft-l', '--data', world.test, '--images', world.images],
    ...['--batch', '2', '--max-new-tokens', '4', '--threads', '1', '--out', at('ft-l'), ...more],
  ];
  const bytes = (): string[] => ['after-1', 'after-3'].map((folder) => readFileSync(at('ft-l', folder, 'records.jsonl'), 'utf8'));
  const before = [...bytes(), readFileSync(at('ft-l', 'summary.json'), 'utf8')];
  rmSync(at('ft-l', 'summary.json'));
  rmSync(at('ft-l', 'after-3', 'summary.json'));
  // What a kill leaves: the first batch, and half of the next.
  const path = at('ft-l', 'after-3', 'records.jsonl');
  const [first, second] = readFileSync(path, 'utf8').split('\n');
  rmSync(path);
  writeFileSync(path, `${first}\n${second}\n{"index":2,"tar`);
  const { code, stdout, stderr } = await visedit(words('--sequential', '3', '--resume', '--json'));
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  expect((JSON.parse(stdout) as { points: unknown[] }).points).toHaveLength(2);
  expect([...bytes(), readFileSync(at('ft-l', 'summary.json'), 'utf8')]).toEqual(before);
  const many = await visedit(words('--sequential', '99', '--resume'));
  expect(many.stderr).toContain('asks for more edits than the 11 records there are');
  const jobs = await visedit(words('--sequential', '3', '--jobs', '2'));
  expect(jobs.stderr).toContain('works in one process');
  const vlm = loadModel(model, { threads: 1 });
  expect(() => underAll({ ...ftL, chain: undefined } as never, vlm, [{}, {}] as never)).toThrow('edits of ft-l do not combine');
  await vlm.release();
});
