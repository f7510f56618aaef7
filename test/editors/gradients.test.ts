/** What editors by gradient share: which weights they find, factors against finite differences, stops and resumes; and all of them on every backbone. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fixtureModels } from '../../lab/conformance/fixture.ts';
import { recipeOf } from '../../lab/recipes.ts';
import {
  type Edit,
  type Editor,
  type EditRequest,
  modelId,
  type Settings,
  type TrainOptions,
  wordsOf,
} from '../../src/editors/editor.ts';
import { readEdit, writeEdit } from '../../src/editors/files.ts';
import { ftL } from '../../src/editors/ft-l.ts';
import { ftV } from '../../src/editors/ft-v.ts';
import { connectorWeights, feedForward, readWeights } from '../../src/editors/gradients/chosen-weights.ts';
import { type Deltas, sumDeltas, withDeltas } from '../../src/editors/gradients/deltas.ts';
import { stateBefore } from '../../src/editors/gradients/edit-loss.ts';
import { gradientFactors, lastMatrices } from '../../src/editors/gradients/factors.ts';
import { ke } from '../../src/editors/ke.ts';
import { mend } from '../../src/editors/mend.ts';
import { tp } from '../../src/editors/tp.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import { f32, sizeOf, type Tensor } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

const root = temporaryFolder();
const sizes: Partial<Record<string, Settings>> = {
  mend: { rank: 8, normRecords: 4 },
  ke: { window: 6, lstm: 8, condition: 8 },
};
const small = (id: string, { decoder }: Vlm): Settings => ({
  ...recipeOf(decoder, id).train,
  ...(sizes[id] && { ...sizes[id], from: decoder.layers - 2 }),
});
/** What edits of models with random weights need: a higher rate and, for a neuron, the published one and its steps. */
const strong: Partial<Record<string, Settings>> = {
  'ft-v': { rate: 3e-3 },
  'ft-l': { rate: 3e-3 },
  tp: { rate: 1e-2, steps: 100 },
};
let vlm: Vlm;
let records: EditRecord[];
let requests: EditRequest[];

const opened = async ({ request }: EditRecord): Promise<EditRequest> => ({ ...request, image: await decodeImage(request.image) });

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 256 }), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  records = loadRecords(world.train, world.images);
  // Of different lengths, so that a batch of them is padded.
  const lengthOf = ({ request: { prompt, target } }: (typeof records)[number]): number =>
    vlm.codec.encode(`${prompt} ${target}`).length;
  const other = records.find((record) => lengthOf(record) !== lengthOf(records[0]!))!;
  requests = await Promise.all([records[0]!, other].map(opened));
});
afterAll(async () => {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
});

/** −log p of each request's target, averaged over its tokens, with `delta` added to a weight. */
async function lossWith(name: string, delta: Tensor<'float32'>, request: EditRequest): Promise<number> {
  const edit: Edit = {
    editor: 'any',
    model: modelId(vlm),
    request: wordsOf(request),
    settings: {},
    tensors: new Map([[`delta.${name}`, delta]]),
  };
  const [answer] = await withDeltas('any', vlm, [edit]).answerTargets([request]);
  return -answer!.logProbs.reduce((a, b) => a + b, 0) / answer!.logProbs.length;
}

test('factors of a batch add up to the gradients that finite differences find, for every matrix', async () => {
  const from = 2;
  const samples = await Promise.all(requests.map((request) => stateBefore(vlm, request, from)));
  const factors = await gradientFactors(vlm, from, samples);
  const matrices = lastMatrices(vlm, from);
  expect([...factors.keys()]).toEqual(matrices.map(({ name }) => name));
  expect(samples[0]!.sequence.ids.length).not.toBe(samples[1]!.sequence.ids.length);
  for (const { name, shape } of matrices) {
    const [out, inWidth] = shape as [number, number];
    const { x, delta } = factors.get(name)!;
    const direction = new Random(name).normals(sizeOf(shape), 1 / Math.sqrt(sizeOf(shape)));
    for (const [e, request] of requests.entries()) {
      // <Σ_t δ_t x_tᵀ, D>
      let expected = 0;
      for (let t = 0; t < x.shape[1]!; t++) {
        const at = e * x.shape[1]! + t;
        for (let o = 0; o < out; o++)
          for (let i = 0; i < inWidth; i++)
            expected += delta.data[at * out + o]! * x.data[at * inWidth + i]! * direction[o * inWidth + i]!;
      }
      const h = 0.05;
      const along = async (step: number): Promise<number> =>
        lossWith(
          name,
          f32(
            direction.map((d) => step * d),
            shape,
          ),
          request,
        );
      const found = ((await along(h)) - (await along(-h))) / (2 * h);
      expect(Math.abs(found - expected), `${name}: ${found} by differences, ${expected} by factors`).toBeLessThan(
        2e-3 + 0.02 * Math.abs(expected),
      );
    }
  }
});

/** The random model with changes of its weights stored in the folder. */
async function storedWith(name: string, edits: readonly Edit[]): Promise<Vlm> {
  const dir = writeRandomLlava(join(root, name), { positions: 256 });
  const file = openSafetensors(join(dir, 'model.safetensors'));
  const weights = new Map(file.names().map((weight) => [weight, file.readTensor(weight, { as: 'float32' })]));
  for (const [weight, { data }] of await sumDeltas(vlm, edits)) {
    const stored = weights.get(weight)!.data;
    data.forEach((x, i) => {
      stored[i]! += x;
    });
  }
  writeSafetensors(join(dir, 'model.safetensors'), weights, { format: 'pt' });
  return loadModel(dir, { threads: 1 });
}

test.each([ftL, ftV, mend, ke])(
  '$id: the next edit of a sequence is that of a model which has those before in its weights',
  async (editor) => {
    const options = {
      out: join(root, `${editor.id}-sequence`),
      seed: 3,
      steps: 8,
      batch: 3,
      threads: 1,
      settings: small(editor.id, vlm),
    };
    const weights = editor.trained ? await editor.train!(vlm, records, options) : undefined;
    const recipe = recipeOf(vlm.decoder, editor.id).edit;
    const next = editor.sequence!(vlm, weights, recipe);
    const [first, second] = [await next(requests[0]!), await next(requests[1]!)];
    const alone = await editor.edit(vlm, requests, weights, recipe);
    expect(first).toEqual(alone[0]);
    const stored = await storedWith(`${editor.id}-stored`, [first]);
    const [expected] = await editor.edit(stored, [requests[1]!], weights && { ...weights, model: modelId(stored) }, recipe);
    const changes = await Promise.all([second, expected!, alone[1]!].map((edit) => sumDeltas(vlm, [edit])));
    const [found, wanted, apart] = changes as [Deltas, Deltas, Deltas];
    const distance = (a: Deltas, b: Deltas): number =>
      Math.hypot(...[...a].map(([name, t]) => Math.hypot(...t.data.map((x, i) => x - b.get(name)!.data[i]!))));
    const far = distance(wanted, apart);
    expect(far).toBeGreaterThan(0);
    expect(distance(found, wanted)).toBeLessThan(0.01 * far);
    await stored.release();
  },
  120_000,
);

test('TP: neurons of a sequence are trained beside those before', async () => {
  const weights = await tp.train!(vlm, records, { out: join(root, 'tp-sequence'), seed: 3, threads: 1 });
  const recipe = recipeOf(vlm.decoder, tp.id).edit;
  const next = tp.sequence!(vlm, weights, recipe);
  const [first, second] = [await next(requests[0]!), await next(requests[0]!)];
  expect(first).toEqual((await tp.edit(vlm, requests.slice(0, 1), weights, recipe))[0]);
  // The same request again starts from an answer that is already on its way.
  expect(second.settings.loss).toBeLessThan(first.settings.loss as number);
  const lossOf = async (edits: Edit[]): Promise<number> =>
    -(await tp.chain!(vlm, edits).answerTargets([requests[0]!]))[0]!.logProbs.reduce((a, b) => a + b, 0);
  expect(await lossOf([first, second])).toBeLessThan(await lossOf([first]));
});

test("TP as VisEdit's authors run it: gates where the module has some, from zero, a memory of text alone, on LLaMA and OPT", async () => {
  const { edit: published, train } = recipeOf(vlm.decoder, tp.id, 'published');
  expect(published).toMatchObject({ moduleForm: true, neurons: 1, steps: 25, decay: 0 });
  const opt = loadModel('mini-blip2-opt', { threads: 1 });
  for (const [model, gated] of [
    [vlm, true],
    [opt, false],
  ] as const) {
    const out = join(root, `tp-published-${model.name}`);
    const weights = await tp.train!(model, records, { out, seed: 3, threads: 1, settings: { ...train, memory: 8 } });
    expect(weights.settings).toMatchObject({ pictures: false });
    const lossUnder = async (edit: Edit): Promise<number> =>
      -(await tp.with(model, [edit]).answerTargets([requests[0]!]))[0]!.logProbs.reduce((a, b) => a + b, 0);
    // Before any step is taken a neuron of zeros says nothing.
    const [still] = await tp.edit(model, requests.slice(0, 1), weights, { ...published, rate: 0 });
    const [made] = await tp.edit(model, requests.slice(0, 1), weights, published);
    expect([...made!.tensors.keys()].includes('gateKeys')).toBe(gated);
    expect(made!.tensors.get('keys')!.shape).toEqual([1, model.decoder.hidden]);
    const unchanged = -(await unedited(model).answerTargets([requests[0]!]))[0]!.logProbs.reduce((a, b) => a + b, 0);
    expect(await lossUnder(still!)).toBeCloseTo(unchanged, 4);
    expect(await lossUnder(made!)).toBeLessThan(unchanged);
    const path = join(root, `tp-published-${model.name}.safetensors`);
    writeEdit(path, made!);
    expect(await lossUnder(readEdit(path))).toBeCloseTo(await lossUnder(made!), 5);
    if (!gated) continue;
    const [plain] = await tp.edit(model, requests.slice(0, 1), weights, { steps: 1 });
    await expect(tp.chain!(model, [made!, plain!]).answerTargets([requests[0]!])).rejects.toThrow('do not combine');
  }
  await opt.release();
});

test('FT-L changes the last down projection alone, in its first step by the rate, and stops below the loss it is told', async () => {
  const [edit] = await ftL.edit(vlm, requests.slice(0, 1), undefined, { steps: 1, rate: 0.01, decay: 0, until: 0 });
  const name = `language_model.model.layers.${vlm.decoder.layers - 1}.mlp.down_proj.weight`;
  expect([...edit!.tensors.keys()]).toEqual([`delta.${name}`]);
  const largest = edit!.tensors.get(`delta.${name}`)!.data.reduce((a, d) => Math.max(a, Math.abs(d)), 0);
  // Adam's first step is the sign of the gradient.
  expect(largest).toBeGreaterThan(0.0099);
  expect(largest).toBeLessThan(0.01001);
  const [stopped] = await ftL.edit(vlm, requests.slice(0, 1), undefined, { steps: 50, rate: 0.05, until: 3 });
  expect(stopped!.settings.stepsTaken).toBeLessThan(50);
  expect(stopped!.settings.loss).toBeLessThan(3);
  const before = await readWeights(vlm, [feedForward(vlm, vlm.decoder.layers - 1).at(-1)!]);
  expect([...before.keys()]).toEqual([name]);
});

test('settings of an edit that do not exist or do not fit are refused by name', async () => {
  const edit = (editor: Editor, settings: Settings): Promise<Edit[]> => editor.edit(vlm, requests, undefined, settings);
  await expect(edit(ftL, { step: 5 })).rejects.toThrow(
    'ft-l has no setting step (did you mean steps?); settings: steps, rate, decay, until',
  );
  await expect(edit(ftV, { steps: 0.5 })).rejects.toThrow('the setting steps of ft-v must be a whole number from 1, got 0.5');
  await expect(edit(ftV, { rate: 'fast' })).rejects.toThrow('the setting rate of ft-v must be a number from 0, got "fast"');
  const train = mend.train!(vlm, records, { out: join(root, 'none'), seed: 1, settings: { ranks: 3 } });
  await expect(train).rejects.toThrow('mend has no setting ranks (did you mean rank?)');
});

describe.each([mend, ke])('$id', (editor) => {
  const train = (out: string, more: Partial<TrainOptions> = {}) =>
    editor.train!(vlm, records, {
      out: join(root, editor.id, out),
      seed: 2,
      steps: 24,
      batch: 3,
      threads: 1,
      settings: small(editor.id, vlm),
      ...more,
    });
  const state = (out: string): Buffer => readFileSync(join(root, editor.id, out, 'checkpoint.safetensors'));

  test('training stopped between checkpoints and resumed ends with the same bytes', async () => {
    const losses = new Map<number, number>();
    await train('whole', { onStep: ({ step, loss }) => losses.set(step, loss) });
    const controller = new AbortController();
    const onStep: TrainOptions['onStep'] = ({ step }) => {
      if (step === 13) controller.abort();
    };
    await expect(train('stopped', { signal: controller.signal, onStep })).rejects.toThrow('stopped after step 13');
    const again: number[] = [];
    await train('stopped', {
      resume: true,
      onStep: ({ step, loss }) => {
        again.push(step);
        expect(loss).toBe(losses.get(step));
      },
    });
    expect(again[0]).toBe(14);
    expect(state('stopped')).toEqual(state('whole'));
    const late = [...losses.values()].slice(-10).reduce((a, b) => a + b, 0);
    expect(late).toBeLessThan([...losses.values()].slice(0, 10).reduce((a, b) => a + b, 0));
  }, 240_000);

  test('batches in parts give the loss of whole ones', async () => {
    const losses = { whole: [] as number[], parts: [] as number[] };
    await train('batch', { steps: 3, onStep: ({ loss }) => losses.whole.push(loss) });
    await train('parts', { steps: 3, microBatch: 2, onStep: ({ loss }) => losses.parts.push(loss) });
    losses.whole.forEach((loss, i) => {
      expect(Math.abs(loss - losses.parts[i]!)).toBeLessThan(1e-4 * Math.abs(loss));
    });
  }, 240_000);
});

describe.skipIf(!hasFixtures).each(hasFixtures ? fixtureModels(fixturesDir) : ['none'])('%s', (name) => {
  let tiny: Vlm;
  let edits: EditRecord[];
  let asked: EditRequest[];
  beforeAll(async () => {
    tiny = loadModel(join(fixturesDir, name), { threads: 1 });
    edits = loadRecords(join(fixturesDir, 'vqa_records.json'), join(fixturesDir, 'images'));
    asked = await Promise.all(edits.slice(0, 1).map(opened));
  });
  afterAll(async () => {
    await tiny.release();
  });

  test('the weights that editors change are found by where they stand', () => {
    const connector = connectorWeights(tiny).map((w) => w.name);
    const mlp = feedForward(tiny, 1).map((w) => w.name.replace(/^.*layers\.1\./, ''));
    expect(mlp).toEqual(
      tiny.architecture.name === 'blip2-opt'
        ? ['fc1.weight', 'fc2.weight']
        : ['gate', 'up', 'down'].map((x) => `mlp.${x}_proj.weight`),
    );
    const parts: Record<string, string[]> = {
      llava: ['multi_modal_projector.'],
      'blip2-opt': ['query_tokens', 'qformer.', 'language_projection.'],
      minigpt4: ['query_tokens', 'Qformer.', 'llama_proj.'],
    };
    const known = parts[tiny.architecture.name]!;
    for (const part of known) expect(connector.some((w) => w.startsWith(part))).toBe(true);
    for (const weight of connector)
      expect(
        known.some((part) => weight.startsWith(part)),
        weight,
      ).toBe(true);
  });

  test.each([ftV, ftL, tp, mend, ke])(
    '$id edits it, towards the target where it works by the edit alone',
    async (editor) => {
      const options = {
        out: join(root, name, editor.id),
        seed: 1,
        steps: 2,
        batch: 2,
        threads: 1,
        settings: small(editor.id, tiny),
      };
      const weights = await editor.train?.(tiny, edits, options);
      const [edit] = await editor.edit(tiny, asked, weights, strong[editor.id]);
      const logProb = async (model: ReturnType<typeof unedited>): Promise<number> =>
        (await model.answerTargets(asked))[0]!.logProbs.reduce((a, b) => a + b, 0);
      const [before, after] = [await logProb(unedited(tiny)), await logProb(editor.with(tiny, [edit!]))];
      if (editor === mend || editor === ke) expect(Math.abs(after - before)).toBeGreaterThan(1e-4);
      else expect(after).toBeGreaterThan(before + 1);
    },
    240_000,
  );
});
