/**
 * M-ORE (ICML 2026; arXiv 2605.20273): edits that stay, written into the weights one after the other so that each keeps clear of those before. To the
 * up and down projections of the last feed-forward modules belong factors  W x + s B A x,  A [r, in] random and frozen, B = 0 at first. One step of an
 * edit, with G the gradient of −log p(target | image, prompt) by B and z the mean of A x over the target's own tokens:
 *   the layers with the largest Σ ‖G‖ are chosen, and in each
 *   B ← B − η G P
 *   P ← P − P z zᵀ P / (λ + zᵀ P z)       P = I at first
 * so that P = (I + Σ z zᵀ / λ)⁻¹: what earlier edits read is hardly changed. The model keeps one B, A and P, however many edits there are.
 *
 * An edit is what it added to B, and the z of its steps, from which P is built again: `sequence` goes on from stored edits, and an edit is dropped by
 * leaving out its B (the stored delta), or by making the later ones again without it (replay). A comes from the seed and is stored nowhere.
 * Deviations: the projector stays as it is; P learns from the edits alone, and not from the locality queries of the records under evaluation, which an
 * editor does not have; no edits of a warm-up stand before the first one.
 */

import { z } from 'zod';
import {
  type Dim,
  f32,
  gradient,
  input,
  matmul,
  mul,
  type Node,
  sqrt,
  square,
  sub,
  sum,
  type Tensor,
  topological,
} from '../graph/index.ts';
import { prefixOf } from '../models/sequence.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';
import { Random } from '../random.ts';
import { type Edit, type Editor, type EditRequest, modelId, type Settings, wordsOf } from './editor.ts';
import type { Forms, Shape } from './forms.ts';
import { type WeightChanges, wholeChanges } from './gradients/changes.ts';
import { feedForward, type NamedWeight } from './gradients/chosen-weights.ts';
import { chainDeltas, withDeltas } from './gradients/deltas.ts';
import { stateBefore, tailFeeds, tailLogits, targetLoss } from './gradients/edit-loss.ts';
import { inFile, parseSettings, real, size, whole } from './settings.ts';

const id = 'm-ore';

const schema = z.object({
  rank: size('r, rank of the factors').default(512),
  layers: size('last decoder layers that have factors', { max: 4096 }).default(12),
  groups: size('layers that a step changes').default(7),
  steps: size('steps of an edit').default(5),
  rate: real('η, rate of B', { above: 0 }).default(0.1),
  lambda: real('λ: the smaller, the more an edit keeps clear of those before', { above: 0 }).default(2000),
  scale: real('s, factor of B A', { above: 0 }).default(2),
  seed: whole('seed of A').default(42),
});
type MOreSettings = z.output<typeof schema>;

const B = 'b.';
const KEYS = 'keys.';

/** Up and down projections of the last layers; a gate's matrix is left alone. */
function layersOf(vlm: Vlm, count: number): NamedWeight[][] {
  const { layers } = vlm.decoder;
  const from = Math.max(0, layers - count);
  return Array.from({ length: layers - from }, (_, i) => feedForward(vlm, from + i).slice(-2));
}

const frozen = new WeakMap<Vlm, Map<string, Tensor<'float32'>>>();

/** A of a matrix: normal, with variance 2 / (r + in). */
function randomFactor(
  vlm: Vlm,
  { name, shape }: NamedWeight,
  { rank, seed }: Pick<MOreSettings, 'rank' | 'seed'>,
): Tensor<'float32'> {
  const known = frozen.get(vlm) ?? new Map<string, Tensor<'float32'>>();
  frozen.set(vlm, known);
  const key = `${seed}/m-ore/${name}/${rank}`;
  const width = shape[1]!;
  const made = known.get(key) ?? f32(new Random(key).normals(rank * width, Math.sqrt(2 / (rank + width))), [rank, width]);
  known.set(key, made);
  return made;
}

/**
 * P − P z zᵀ P / (λ + zᵀ P z) for a symmetric P [r, r].
 * @returns (P⁻¹ + z zᵀ / λ)⁻¹
 */
export function projected(p: Float32Array, key: Float32Array, lambda: number): Float32Array {
  const r = key.length;
  const pz = new Float64Array(r);
  for (let i = 0; i < r; i++) for (let j = 0; j < r; j++) pz[i]! += p[i * r + j]! * key[j]!;
  const divisor = key.reduce((total, x, i) => total + x * pz[i]!, lambda);
  const out = new Float32Array(r * r);
  for (let i = 0; i < r; i++) for (let j = 0; j < r; j++) out[i * r + j] = p[i * r + j]! - (pz[i]! * pz[j]!) / divisor;
  return out;
}

/** B and P of a matrix as edits leave them. */
interface Memory {
  b: Tensor<'float32'>;
  p: Tensor<'float32'>;
}

/** @param earlier edits that were made with the same A */
function memoriesOf(
  matrices: readonly NamedWeight[],
  { rank, lambda }: MOreSettings,
  earlier: readonly Edit[],
): Map<string, Memory> {
  return new Map(
    matrices.map(({ name, shape: [out] }): [string, Memory] => {
      const b = new Float32Array(out! * rank);
      let p = new Float32Array(rank * rank);
      for (let i = 0; i < rank; i++) p[i * rank + i] = 1;
      for (const { tensors } of earlier) {
        tensors.get(B + name)?.data.forEach((x, i) => {
          b[i]! += x;
        });
        for (const key of keysOf(tensors, name, rank)) p = projected(p, key, lambda) as typeof p;
      }
      return [name, { b: f32(b, [1, out!, rank]), p: f32(p, [rank, rank]) }];
    }),
  );
}

const keysOf = (tensors: Edit['tensors'], name: string, rank: number): Float32Array[] => {
  const keys = tensors.get(KEYS + name);
  return Array.from({ length: keys?.shape[0] ?? 0 }, (_, n) => keys!.data.subarray(n * rank, (n + 1) * rank));
};

/**
 * One step on every matrix: `b` after it, the gradient's `norm`, and the `key` z [r]. Inputs beside those of `tailLogits`: a, b and p of each matrix, the
 * rate, and `own` [b, 1, words], which averages over the target's own tokens.
 */
function stepGraph(
  vlm: Vlm,
  from: number,
  prefix: Dim,
  matrices: readonly NamedWeight[],
  rank: number,
  scale: number,
): Record<string, Node> {
  const sides = matrices.map(({ name, shape }) => {
    const [out, width] = shape as [number, number];
    return {
      name,
      a: input(`a:${name}`, [rank, width]),
      b: input(`b:${name}`, [1, out, rank]),
      p: input(`p:${name}`, [rank, rank]),
    };
  });
  const changes = new Map(sides.map(({ name, a, b }) => [name, { left: mul(b, scale), right: a }]));
  const loss = targetLoss(tailLogits(vlm, from, prefix, new Weights(new Map(), changes)));
  // The picture and the words pass a layer apart; the target is among the words.
  const products = topological([loss]).filter(({ op }) => op.name === 'matmul');
  const words = sides.map(({ a }) => products.find(({ inputs, shape }) => inputs[1] === a && shape[1] !== prefix)!);
  const own = input('own', ['b', 1, words[0]!.dim(1)]);
  const gradients = gradient(
    loss,
    sides.map(({ b }) => b),
  );
  return Object.fromEntries([
    ['loss', loss] as const,
    ...sides.flatMap(({ name, b, p }, i) => {
      const g = gradients[i]!;
      return [
        [`b:${name}`, sub(b, mul(matmul(g, p), input('rate', [])))] as const,
        [`norm:${name}`, sqrt(sum(square(g)))] as const,
        [`key:${name}`, matmul(own, words[i]!)] as const,
      ];
    }),
  ]);
}

/** Makes edits on a model with memories, which it changes. */
async function write(vlm: Vlm, request: EditRequest, memories: Map<string, Memory>, settings: MOreSettings): Promise<Edit> {
  const { rank, scale, steps, rate, lambda } = settings;
  const groups = layersOf(vlm, settings.layers);
  const matrices = groups.flat();
  const from = vlm.decoder.layers - groups.length;
  const state = await stateBefore(vlm, request, from);
  const { sequence } = state;
  const end = prefixOf(sequence);
  const program = await vlm.program(stepGraph, from, vlm.prefixDim(end), matrices, rank, scale);
  const before = new Map([...memories].map(([name, { b }]) => [name, b]));
  const fixed = {
    ...tailFeeds(vlm, [state]),
    rate: f32([rate], []),
    own: f32(ownTokens(sequence.ids.length - end, sequence.targetIds.length), [1, 1, sequence.ids.length - end]),
    ...Object.fromEntries(matrices.map((matrix) => [`a:${matrix.name}`, randomFactor(vlm, matrix, settings)])),
  };
  const keys = new Map<string, Float32Array[]>();
  let loss = Number.NaN;
  for (let step = 0; step < steps; step++) {
    const feeds = [...memories].flatMap(([name, { b, p }]) => [[`b:${name}`, b] as const, [`p:${name}`, p] as const]);
    const out = await program.run({ ...fixed, ...Object.fromEntries(feeds) });
    const number = (name: string): number => (out[name]!.data as Float32Array)[0]!;
    loss = number('loss');
    if (!Number.isFinite(loss)) throw new Error(`step ${step + 1} of the edit: the loss is ${loss}. Try a lower rate`);
    const scores = groups.map((group) => group.reduce((total, { name }) => total + number(`norm:${name}`), 0));
    const ranked = groups.map((_, i) => i).sort((i, j) => scores[j]! - scores[i]! || i - j);
    for (const { name } of ranked.slice(0, settings.groups).flatMap((i) => groups[i]!)) {
      const key = out[`key:${name}`]!.data as Float32Array;
      const p = projected(memories.get(name)!.p.data, key, lambda);
      memories.set(name, { b: out[`b:${name}`] as Tensor<'float32'>, p: f32(p, [rank, rank]) });
      keys.set(name, [...(keys.get(name) ?? []), key]);
    }
  }
  const tensors = new Map<string, Tensor<'float32'>>();
  for (const [name, own] of keys) {
    const [was, is] = [before.get(name)!, memories.get(name)!.b];
    const flat = new Float32Array(own.length * rank);
    own.forEach((key, n) => {
      flat.set(key, n * rank);
    });
    tensors.set(
      B + name,
      f32(
        is.data.map((x, i) => x - was.data[i]!),
        is.shape.slice(1),
      ),
    );
    tensors.set(KEYS + name, f32(flat, [own.length, rank]));
  }
  return { editor: id, model: modelId(vlm), request: wordsOf(request), settings: { ...settings, loss }, tensors };
}

/** Weights that average over the last tokens. */
function ownTokens(length: number, count: number): Float32Array {
  return new Float32Array(length).fill(1 / count, length - count);
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], _weights?: unknown, given?: Settings): Promise<Edit[]> {
  const settings = parseSettings(id, schema, given);
  const matrices = layersOf(vlm, settings.layers).flat();
  const edits: Edit[] = [];
  for (const request of requests) edits.push(await write(vlm, request, memoriesOf(matrices, settings, []), settings));
  return edits;
}

/** What makes an A: edits with the same have one B. */
const factorOf = ({ settings: { rank, seed, scale } }: Pick<Edit, 'settings'>): string => JSON.stringify([rank, seed, scale]);

/** s B A of each matrix, the B of edits with the same A added up. */
async function changes(vlm: Vlm, edits: readonly Edit[]): Promise<WeightChanges> {
  const all = new Map<string, { dense: []; factored: { left: Tensor<'float32'>; right: Tensor<'float32'> }[] }>();
  for (const factor of new Set(edits.map(factorOf))) {
    const same = edits.filter((one) => factorOf(one) === factor);
    const { rank, seed, scale } = same[0]!.settings as unknown as MOreSettings;
    for (const matrix of layersOf(vlm, vlm.decoder.layers).flat()) {
      const parts = same.flatMap(({ tensors }) => tensors.get(B + matrix.name) ?? []);
      if (parts.length === 0) continue;
      const sum = new Float32Array(parts[0]!.data.length);
      for (const { data } of parts) for (let i = 0; i < sum.length; i++) sum[i]! += scale * data[i]!;
      const there = all.get(matrix.name) ?? { dense: [], factored: [] };
      there.factored.push({ left: f32(sum, parts[0]!.shape), right: randomFactor(vlm, matrix, { rank, seed }) });
      all.set(matrix.name, there);
    }
  }
  return all;
}

const deltas = async (vlm: Vlm, edits: readonly Edit[]) => wholeChanges(vlm, await changes(vlm, edits));

const forms: Forms = {
  edit: {
    settings: () => inFile(schema.shape, ['rank', 'seed', 'scale', 'lambda']),
    tensors: (vlm, { settings, tensors }) =>
      layersOf(vlm, vlm.decoder.layers)
        .flat()
        .filter(({ name }) => tensors.has(B + name) || tensors.has(KEYS + name))
        .flatMap(({ name, shape }): [string, Shape][] => [
          [B + name, [shape[0]!, settings.rank as number]],
          [KEYS + name, [`keys of ${name}`, settings.rank as number]],
        ]),
  },
};

/** Edits that a sequence goes on from. @throws Error when they have another A or λ */
function goesOn(settings: MOreSettings, earlier: readonly Edit[]): void {
  const other = earlier.find((one) => factorOf(one) !== factorOf({ settings }) || one.settings.lambda !== settings.lambda);
  if (other !== undefined)
    throw new Error(
      `edits of m-ore go on from others with the same rank, seed, scale and lambda; ${JSON.stringify(other.request.prompt)} was made with ${JSON.stringify(other.settings)}`,
    );
}

export const mOre: Editor = {
  id,
  summary: 'writes each edit into frozen low-rank factors of the last feed-forward layers, clear of what earlier edits read',
  trained: false,
  promises: { textUntouched: false, batchEqualsSingles: true },
  settings: { edit: () => schema },
  forms,
  edit,
  with: (vlm, edits) => withDeltas(id, vlm, edits, forms, deltas),
  chain: (vlm, edits) => chainDeltas(id, vlm, edits, forms, deltas),
  changes,
  sequence: (vlm, _weights, given, earlier = []) => {
    const settings = parseSettings(id, schema, given);
    goesOn(settings, earlier);
    const memories = memoriesOf(layersOf(vlm, settings.layers).flat(), settings, earlier);
    return (request) => write(vlm, request, memories, settings);
  },
};
