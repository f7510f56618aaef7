/** Tools that explain an answer against the direct computation, on a tiny random model. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cutEdges } from '../../src/attribution/cut.ts';
import { headParts } from '../../src/attribution/head-parts.ts';
import { moduleContribution } from '../../src/attribution/module-contribution.ts';
import { neuronCount, neuronParts } from '../../src/attribution/neuron-parts.ts';
import { nextToken } from '../../src/attribution/next-token.ts';
import { swapStates } from '../../src/attribution/swap.ts';
import { toolNamed, tools } from '../../src/attribution/tools/index.ts';
import { logitLens, readStates } from '../../src/attribution/tools/lens.ts';
import { direction, steered } from '../../src/attribution/tools/steer.ts';
import { type Found, groupsOf, layersOf, partsOf, type Subject } from '../../src/attribution/tools/tool.ts';
import { trace as readTrace } from '../../src/attribution/trace.ts';
import { f32, type Tensor } from '../../src/graph/dtype.ts';
import { type Reading, readInput } from '../../src/models/answer.ts';
import { MASKED } from '../../src/models/batch.ts';
import { loadModel } from '../../src/models/load.ts';
import { logOdds } from '../../src/models/ranked-tokens.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

const prompt = 'What is in the middle? The answer is:';
const dir = mkdtempSync(join(tmpdir(), 'visedit-tools-'));
const layers = 4;
const d = 32;
let vlm: Vlm;
let clean: Reading;
let other: Reading;
let subject: Subject;

beforeAll(async () => {
  vlm = loadModel(writeRandomLlava(join(dir, 'model'), { keyHeads: 2 }), { threads: 1 });
  const asked = { prompt, image: randomPicture(1) };
  clean = await readInput(vlm, asked);
  other = await readInput(vlm, { prompt, image: randomPicture(2) });
  subject = { vlm, asked, reading: clean, read: (one) => readInput(vlm, one) };
});
afterAll(async () => {
  await vlm.release();
  rmSync(dir, { recursive: true });
});

const endOf = ({ batch }: Reading): number => batch.sequences[0]!.promptEnd;
const statesAfter = async (reading: Reading, layer: number): Promise<Float32Array> =>
  (await vlm.run({ from: 0, to: layer + 1, read: [`layers.${layer}.out`] }, reading.batch))[`layers.${layer}.out`]!
    .data as Float32Array;
/** Scores at the last position when the layers behind `layer` go on from other states. */
async function goOn(
  reading: Reading,
  layer: number,
  states: Float32Array,
  feeds: Record<string, Tensor> = {},
): Promise<Float32Array> {
  const l = reading.batch.length;
  const hidden = f32(states, [1, l, d]);
  const { logits } = await vlm.run({ from: layer + 1, to: layers, read: ['logits'] }, reading.batch, { ...feeds, hidden });
  const n = vlm.decoder.vocabulary;
  return (logits!.data as Float32Array).slice(endOf(reading) * n, (endOf(reading) + 1) * n);
}
const probabilityOf = (scores: Float32Array, id: number): number => {
  const top = Math.max(...scores);
  return Math.exp(scores[id]! - top) / scores.reduce((sum, x) => sum + Math.exp(x - top), 0);
};

test('the lens after the last layer is what the model says, and at the last position that of the modules', async () => {
  const keyId = 40;
  const [row] = await logitLens(vlm, clean, { layers: [0, 1, 2, 3], positions: [endOf(clean)], top: 3, keyId });
  const [found] = await moduleContribution(vlm, clean.batch, [keyId], undefined, 3);
  row!.forEach((cell, i) => {
    expect(cell.keyProbability).toBeCloseTo(found!.prob.layer[i]!, 6);
    expect(cell.keyRank).toBe(found!.lens[i]!.rank);
    expect(cell.tokens.map(({ id }) => id)).toEqual(found!.lens[i]!.tokens.map(({ id }) => id));
  });
  expect(row![3]!.tokens[0]!.id).toBe((await nextToken(vlm, clean.batch)).predicted);
});

test('probabilities of heads sum to 1, and their parts to the output of the module', async () => {
  for (const position of [endOf(clean), endOf(clean) - 3]) {
    const found = await headParts(vlm, clean, [0, 1, 2, 3], position);
    for (const { layer, probabilities, parts } of found) {
      const site = `layers.${layer}.attn.out`;
      const out = (await vlm.run({ from: 0, to: layer + 1, read: [site] }, clean.batch))[site]!.data as Float32Array;
      const l = clean.batch.length;
      for (let head = 0; head < 4; head++) {
        const row = probabilities.data.subarray(head * l, (head + 1) * l);
        expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
        expect(Math.max(0, ...row.subarray(position + 1))).toBe(0);
      }
      for (let j = 0; j < d; j++) {
        const sum = [0, 1, 2, 3].reduce((total, head) => total + parts.data[head * d + j]!, 0);
        expect(sum).toBeCloseTo(out[position * d + j]!, 5);
      }
    }
  }
});

test('a trace has queries and probabilities, those of the heads', async () => {
  const sites = ['layers.2.attn.query', 'layers.2.attn.probabilities', 'layers.2.attn.key'];
  const { activations } = await readTrace(vlm, subject.asked, sites);
  const l = clean.batch.length;
  expect(sites.map((site) => activations.get(site)!.shape)).toEqual([
    [4, l, d / 4],
    [4, l, l],
    [expect.any(Number), l, d / 4],
  ]);
  const [heads] = await headParts(vlm, clean, [2], endOf(clean));
  const probabilities = activations.get('layers.2.attn.probabilities')!.data;
  for (let head = 0; head < 4; head++)
    for (let i = 0; i < l; i++)
      expect(probabilities[(head * l + endOf(clean)) * l + i]!).toBeCloseTo(heads!.probabilities.data[head * l + i]!, 5);
});

test('parts of neurons and the bias sum to the output of the module, and falls are those of log odds without them', async () => {
  const position = endOf(clean);
  const key = 40;
  const every = [0, 1, 2, 3];
  const { neurons, last } = await neuronParts(vlm, clean, every, position, key);
  const states = await statesAfter(clean, 3);
  expect(Array.from(last)).toEqual(Array.from(states.subarray(position * d, (position + 1) * d)));
  const oddsOf = async (rows: Float32Array): Promise<number[]> => {
    const odds: number[] = [];
    await readStates(vlm, f32(rows, [rows.length / d, d]), undefined, (_, logits) => odds.push(logOdds(logits, key)));
    return odds;
  };
  const [whole] = await oddsOf(last);
  for (const { layer, activations, firstOrder, partsOf } of neurons) {
    const wide = activations.length;
    expect(wide).toBe(neuronCount(vlm.decoder, layer));
    const { data } = await partsOf(activations.map((_, i) => i) as never);
    const site = `layers.${layer}.mlp.out`;
    const out = (await vlm.run({ from: 0, to: layer + 1, read: [site] }, clean.batch))[site]!.data as Float32Array;
    for (let j = 0; j < d; j++) {
      let sum = 0;
      for (let i = 0; i < wide; i++) sum += data[i * d + j]!;
      expect(sum).toBeCloseTo(out[position * d + j]!, 4);
    }
    // To first order: a hundredth of each part taken out, a hundred times over.
    const step = 0.01;
    const [less, more] = [-step, step].map((by) => data.map((value, i) => last[i % d]! + by * value));
    const [below, above] = [await oddsOf(less!), await oddsOf(more!)];
    firstOrder.forEach((value, i) => {
      expect(value).toBeCloseTo((above[i]! - below[i]!) / (2 * step), 2);
    });
    const { matrix, table } = await toolNamed('neurons').run({ ...subject, keyId: key }, { layers: `${layer}`, top: 5 }, {});
    const odds = await oddsOf(data.map((value, i) => last[i % d]! - value));
    const falls = odds.map((value) => Math.abs(whole! - value)).sort((a, b) => b - a);
    expect(Math.abs(matrix!.values[0]![0]!)).toBeCloseTo(falls[0]!, 4);
    table.rows.forEach(([, neuron], i) => {
      expect(matrix!.values[i]![0]!).toBeCloseTo(whole! - odds[Number(neuron)]!, 4);
    });
  }
});

test('edges cut in one layer are those of a bias that masks them there', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.infiniteStream(fc.nat(1000)), async (layer, stream) => {
      const l = clean.batch.length;
      const some = [...stream.take(12)].map((value) => value % l);
      const [queries, keys] = [[endOf(clean), ...some.slice(0, 5)], some.slice(5)];
      const cut = await nextToken(vlm, clean.batch, cutEdges(vlm, clean, { queries, keys, layers: [layer] }));
      const bias = (clean.batch.feeds.bias!.data as Float32Array).slice();
      for (const query of queries) for (const key of keys) if (key !== query) bias[query * l + key]! += MASKED;
      const site = `layers.${layer}.out`;
      const hidden = f32(await statesAfter(clean, layer - 1), [1, l, d]);
      const masked = await vlm.run({ from: layer, to: layer + 1, read: [site] }, clean.batch, {
        hidden,
        bias: f32(bias, [1, 1, l, l]),
      });
      const scores = layer === 3 ? undefined : await goOn(clean, layer, masked[site]!.data as Float32Array);
      if (scores !== undefined) expect(cut.probability(7)).toBeCloseTo(probabilityOf(scores, 7), 5);
      else expect(cut.probability(7)).toBeGreaterThan(0);
    }),
    { numRuns: 8, seed: 3 },
  );
});

test('swapped states are a run that goes on from the mixed ones', async () => {
  const sites = [0, 1, 2, 3].flatMap((i) => [`layers.${i}.out`, `layers.${i}.attn.out`]);
  for (const layer of [0, 2]) {
    const own = await statesAfter(other, layer);
    const given = await statesAfter(clean, layer);
    const places = [2, 5, endOf(clean)];
    const mixed = own.slice();
    for (const place of places) mixed.set(given.subarray(place * d, (place + 1) * d), place * d);
    const states = f32(given, [1, clean.batch.length, d]);
    const rewrite = swapStates(other, sites, { site: `layers.${layer}.out`, states, places });
    const next = await nextToken(vlm, other.batch, rewrite);
    expect(next.probability(9)).toBeCloseTo(probabilityOf(await goOn(other, layer, mixed), 9), 5);
  }
});

test('all states of the clean run bring the clean answer back', async () => {
  const found = await toolNamed('patch').run(
    subject,
    { modules: 'out', parts: 'groups' },
    { against: { image: randomPicture(2) } },
  );
  const last = found.matrix!.rows.indexOf('last token');
  expect(found.matrix!.values[last]!.at(-1)).toBeCloseTo(1, 4);
  const shorter = { against: { prompt: 'What is it?' } };
  await expect(toolNamed('patch').run(subject, { modules: 'out', parts: 'groups' }, shorter)).rejects.toThrow(
    /must have as many/,
  );
});

test('steering is a run that goes on from states with the direction added, and strength 0 does nothing', async () => {
  const layer = 1;
  const by = await direction(vlm, other, clean, layer);
  const steer = async (factor: number) =>
    nextToken(
      vlm,
      clean.batch,
      steered(
        vlm,
        clean,
        layer,
        by.map((value) => factor * value),
      ),
    );
  const plain = await nextToken(vlm, clean.batch);
  expect((await steer(0)).probability(9)).toBeCloseTo(plain.probability(9), 6);
  const states = (await statesAfter(clean, layer)).slice();
  const { words } = groupsOf(clean.batch.sequences[0]!);
  for (const place of [...words, endOf(clean)]) for (let j = 0; j < d; j++) states[place * d + j]! += 3 * by[j]!;
  expect((await steer(3)).probability(9)).toBeCloseTo(probabilityOf(await goOn(clean, layer, states), 9), 5);
});

test('words and pictures of an input', () => {
  const parts = partsOf(vlm, clean.batch.sequences[0]!);
  expect(parts.map(({ name }) => name)).toEqual([
    'picture',
    'What',
    'is',
    'in',
    'the',
    'middle',
    '?',
    'The',
    'answer',
    'is',
    ':',
  ]);
  expect(parts[0]!.places).toHaveLength(9);
  expect(layersOf('0,2-3', 4)).toEqual([0, 2, 3]);
  expect(() => layersOf('2-9', 4)).toThrow(/layers 0 to 3/);
  expect(() => toolNamed('lenses')).toThrow(/there are: lens, /);
});

test('every tool runs on a later token of the answer and under its own options', async () => {
  const ids = [40, 41];
  const later: Subject = { ...subject, reading: await readInput(vlm, { ...subject.asked, answer: ids }) };
  for (const tool of tools) {
    const options = tool.options.parse(tool.id === 'steer' ? { toward: 'a cat', away: 'a dog' } : {});
    const run = tool.compares === 'must' ? { against: { image: randomPicture(2) } } : {};
    const found = await tool.run(later, options, tool.compares === 'must' ? run : {}).catch((error: Error) => error);
    // Patching asks about the other picture without the later tokens, unless its reader knows them.
    if (tool.id === 'patch') expect(found).toBeInstanceOf(Error);
    else {
      expect(found).not.toBeInstanceOf(Error);
      expect((found as Found).table.rows.length).toBeGreaterThan(0);
    }
  }
});
