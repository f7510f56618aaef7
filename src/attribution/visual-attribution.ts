/**
 * Visual representation attribution (VisEdit Eq. 6-8): C(n) = ½ (1 − cos(ã[N], a[N])), where ã is the attention module's output at a query
 * position N after noise on visual token n. Where the noise goes in:
 *   `hidden`  h̃ = h[l-1][n] + ε, ε ~ N(0, (3σ)²), σ the standard deviation of the visual hidden states; x̃ = norm(h̃)   (Eq. 6)
 *   `norm`    x̃ = norm(h[l-1][n]) + ε, a fixed standard deviation of 0.7                                              (the authors' code)
 * How it is computed: influence.ts, and shared-influence.ts for noise that all tokens share.
 */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import { input, mul, type Node } from '../graph/index.ts';
import { type Batch, batchShape, positionFeeds } from '../models/batch.ts';
import { entered } from '../models/deep.ts';
import type { Rewrite } from '../models/rewrite.ts';
import { type Sequence, visualPlaces } from '../models/sequence.ts';
import { windowOf } from '../models/sight.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';
import type { Random } from '../random.ts';
import type { Program } from '../runtime/program.ts';
import { attentionInput, axesOf, influence, visibleUpTo } from './influence.ts';
import { type MapEstimate, RunningMap } from './map-error.ts';
import { sharedInfluence } from './shared-influence.ts';

/** Standard deviation of the authors' noise after the layer norm. */
const authorsSigma = 0.7;

export type NoiseAt = 'hidden' | 'norm';

/** `converged`: draws until the map is sure; `paper`: the paper's number of draws, each token's its own. */
export type Protocol = 'converged' | 'paper';

/** How the noise of visual attribution is drawn, and where it is put (Eq. 6-8). */
export interface VisualAttributionOptions {
  /** default: converged */
  protocol?: Protocol;
  /** `paper`: draws that the map averages; default 10 */
  draws?: number;
  /** `converged`: the largest standard error that a map may have, as a share of its largest value; default 0.05 */
  error?: number;
  /** `converged`: the largest number of draws; default 16384 */
  budget?: number;
  /** before the layer norm (`hidden`, the paper's default) or after it (`norm`, the authors' code and the default of `converged`) */
  noiseAt?: NoiseAt;
  /**
   * standard deviation of the noise. `paper`: 3 times that of all elements of the visual states that the noise is added to (Eq. 6), the
   * default before the norm; a number: that value, 0.7 by default after the norm
   */
  sigma?: number | 'paper';
  random: Random;
  /** sequence position that looks: default the last prompt position */
  end?: number;
  rewrite?: Rewrite;
  onLayer?: (done: number) => void;
  signal?: AbortSignal;
}

/** A map of one layer over the visual tokens. */
export interface VisualAttribution {
  layer: number;
  /** mean contribution of every visual token, in [0, 1] */
  values: number[];
  /** standard deviation of the noise */
  sigma: number;
  draws: number;
  /** standard error of each value, of the map normalised by its sum */
  errors: number[];
  /** the largest standard error as a share of the largest value */
  error: number;
  /** correlation to expect with a map from other draws */
  agreement: number;
  /** whether the error is within the bound */
  converged: boolean;
  /** whether the picture moves the layer's output at all: false where noise on all patches would turn it by less than two degrees */
  carriesWeight: boolean;
}

/** What the options say where they are left out. */
export const mapDefaults = { error: 0.05, budget: 16_384, draws: 10 } as const;

/** A converged map also agrees as much as this with one from other draws, and its sum is as sure as this. */
const leastAgreement = 0.99;
const totalBound = 0.25;

/** Sum of a map below which its layer carries no weight: ½ (1 − cos 2°). */
export const noWeight = (1 - Math.cos(Math.PI / 90)) / 2;

/** Standard deviation of all elements. */
export function deviation(x: Float32Array): number {
  let total = 0;
  for (const v of x) total += v;
  const mean = total / x.length;
  let squares = 0;
  for (const v of x) squares += (v - mean) ** 2;
  return Math.sqrt(squares / x.length);
}

function influenceProgram(
  vlm: Vlm,
  layer: number,
  noiseAt: NoiseAt,
  rewrite: Rewrite | undefined,
  residual: boolean,
): Promise<Program> {
  const replace = rewrite !== undefined && rewrite.replace.size > 0 ? rewrite : undefined;
  return vlm.program(influenceGraph, layer, noiseAt, replace, residual);
}

function influenceGraph(
  { decoder }: Vlm,
  layer: number,
  noiseAt: NoiseAt,
  rewrite: Rewrite | undefined,
  residual: boolean,
): Record<string, Node> {
  const d = decoder.hidden;
  const w = new Weights(rewrite?.replace);
  const state = input('state', ['b', 'l', d]);
  const x = noiseAt === 'hidden' ? attentionInput(decoder, layer, w, state) : state;
  const distances = influence(
    decoder,
    layer,
    w,
    x,
    input('positions', axesOf(decoder, ['b', 'l']), 'int64'),
    input('tokens', ['t'], 'int64'),
    input('noise', ['b', 't', 's', d]),
    input('ends', ['b'], 'int64'),
    input('visible', ['b', 'l']),
    noiseAt === 'hidden' ? state : undefined,
    residual ? (output) => decoder.afterAttention?.(layer, output, w) ?? output : undefined,
  );
  return { contribution: mul(distances, 0.5) };
}

/** Floats of the largest intermediate values of one run: more tokens than fit are computed in several runs. */
const RUN_FLOATS = 16e6;

/**
 * C of one layer for the rows of noise given, [t, s] of one sequence; the raw form that conformance compares.
 * @param state [l, d]: the attention module's input, or h[l-1] when the noise is before the norm
 * @param noise [t, s, d] or [s, d] shared by all tokens
 * @param positions of the sequence, [1, l] or [axes, 1, l]; 0, 1, 2, … when left out
 * @param residual whether what is added to the residual stream is compared instead of the attention module's output
 */
export async function contributionOf(
  vlm: Vlm,
  layer: number,
  state: Tensor<'float32'>,
  tokens: readonly number[],
  noise: Tensor<'float32'>,
  end: number,
  noiseAt: NoiseAt = 'norm',
  rewrite?: Rewrite,
  positions?: Tensor,
  residual = false,
): Promise<Tensor<'float32'>> {
  return (await openContribution(vlm, layer, state, tokens, end, noiseAt, rewrite, positions, residual))(noise);
}

/** The same for any number of rows of noise. */
async function openContribution(
  vlm: Vlm,
  layer: number,
  state: Tensor<'float32'>,
  tokens: readonly number[],
  end: number,
  noiseAt: NoiseAt,
  rewrite: Rewrite | undefined,
  given: Tensor | undefined,
  residual = false,
): Promise<(noise: Tensor<'float32'>) => Promise<Tensor<'float32'>>> {
  const [l, d] = state.shape as [number, number];
  const positions = given ?? positionFeeds(batchShape([plainSequence(l)]), vlm.decoder.positionAxes);
  const visible = visibleUpTo([end], l, windowOf(vlm.decoder, layer));
  const { heads, headWidth } = vlm.decoder;
  let together: ReturnType<typeof sharedInfluence> | undefined;
  const alone = async (noise: Tensor<'float32'>): Promise<Tensor<'float32'>> => {
    const shared = noise.shape.length === 2;
    const s = noise.shape[shared ? 0 : 1]!;
    const program = await influenceProgram(vlm, layer, noiseAt, rewrite, residual);
    const out = new Float32Array(tokens.length * s);
    const perRun = Math.max(1, Math.floor(RUN_FLOATS / (s * (2 * d + 2 * heads * headWidth) + 2 * heads * l)));
    for (let at = 0; at < tokens.length; at += perRun) {
      const part = tokens.slice(at, at + perRun);
      let rows = noise.data.subarray(at * s * d, (at + part.length) * s * d);
      if (shared) {
        rows = new Float32Array(part.length * s * d);
        for (let i = 0; i < part.length; i++) rows.set(noise.data, i * s * d);
      }
      const result = await program.run({
        ...rewrite?.feeds,
        state: f32(state.data, [1, l, d]),
        positions,
        tokens: i64(part, [part.length]),
        noise: f32(rows, [1, part.length, s, d]),
        ends: i64([end], [1]),
        visible,
      });
      out.set(result.contribution!.data as Float32Array, at * s);
    }
    return f32(out, [tokens.length, s]);
  };
  return async (noise) => {
    if (noise.shape.length === 3 || noiseAt === 'hidden' || residual) return alone(noise);
    together ??= sharedInfluence(vlm, layer, { state, positions, tokens, end, visible }, rewrite);
    return (await together)(noise);
  };
}

/** A sequence of which only the length matters. */
const plainSequence = (length: number): Sequence => ({
  ids: new Array<number>(length).fill(0),
  pictures: [],
  spans: [],
  promptEnd: length - 1,
  targetIds: [],
});

/** Rows [n × d] of a state at some places. */
function rowsAt(state: Float32Array, places: readonly number[], d: number): Float32Array {
  const out = new Float32Array(places.length * d);
  places.forEach((place, i) => {
    out.set(state.subarray(place * d, (place + 1) * d), i * d);
  });
  return out;
}

/** The site that a layer's noise is added to. */
const siteOf = (layer: number, noiseAt: NoiseAt): string =>
  noiseAt === 'norm' ? `layers.${layer}.attn.in` : layer === 0 ? 'decoder.in' : `layers.${layer - 1}.out`;

/** Attribution of every visual token of one sequence at several layers; the layers before the last of them run once. */
export async function visualAttributions(
  vlm: Vlm,
  batch: Batch,
  layers: readonly number[],
  options: VisualAttributionOptions,
): Promise<VisualAttribution[]> {
  const { protocol = 'converged', rewrite } = options;
  const { noiseAt = protocol === 'paper' ? 'hidden' : 'norm' } = options;
  const sigma = options.sigma ?? (noiseAt === 'hidden' ? 'paper' : authorsSigma);
  const sequence = batch.sequences[0]!;
  if (batch.sequences.length !== 1) throw new Error('visual attribution takes one input at a time');
  if (sequence.pictures.length === 0) throw new Error('visual attribution needs a picture');
  for (const layer of layers) checkLayer(vlm, layer);
  if (layers.length === 0) return [];
  const end = options.end ?? sequence.promptEnd;
  const l = batch.length;
  const d = vlm.decoder.hidden;
  const tokens = visualPlaces(sequence);
  const names = [...new Set(layers.map((layer) => siteOf(layer, noiseAt)))];
  const to = Math.max(...layers) + (noiseAt === 'norm' ? 1 : 0);
  const states = await vlm.run({ from: 0, to, read: names }, batch, {}, rewrite);
  const out: VisualAttribution[] = [];
  for (const layer of layers) {
    const read = states[siteOf(layer, noiseAt)]!.data as Float32Array;
    const feeds = { ...batch.feeds, ...rewrite?.feeds };
    const state = f32(noiseAt === 'hidden' ? entered(read, layer, feeds) : read, [l, d]);
    const scale = sigma === 'paper' ? 3 * deviation(rowsAt(state.data, tokens, d)) : sigma;
    const contribution = await openContribution(vlm, layer, state, tokens, end, noiseAt, rewrite, batch.feeds.positions);
    // Noise belongs to the layer, so that a layer's map does not depend on which others are asked for.
    const random = options.random.fork(`layer ${layer}`);
    const drawn = { random, scale, width: d, tokens: tokens.length, contribution };
    out.push({
      layer,
      sigma: scale,
      ...(protocol === 'paper' ? await drawOnce(drawn, options) : await converge(drawn, options)),
    });
    options.onLayer?.(out.length);
  }
  return out;
}

/** How the draws of one layer's map are made. */
interface Drawn {
  readonly random: Random;
  readonly scale: number;
  readonly width: number;
  readonly tokens: number;
  /** noise [t, s, d], or [s, d] of all tokens -> C [t, s] */
  readonly contribution: (noise: Tensor<'float32'>) => Promise<Tensor<'float32'>>;
}

type DrawnMap = Omit<VisualAttribution, 'layer' | 'sigma'>;

/** The paper's draws: a number of them, each token's its own. */
async function drawOnce(
  { random, scale, width, tokens, contribution }: Drawn,
  options: VisualAttributionOptions,
): Promise<DrawnMap> {
  const { draws = mapDefaults.draws, error = mapDefaults.error } = options;
  const noise = f32(random.normals(tokens * draws * width, scale), [tokens, draws, width]);
  const running = new RunningMap(tokens);
  running.add((await contribution(noise)).data, draws, false);
  return judged(running.estimate(), draws, error);
}

/** Fewest draws: the error of a few is itself uncertain. */
const firstRound = 256;

/** Opposite draws that all tokens share, in rounds, until the map is sure or the budget is spent. */
async function converge(
  { random, scale, width, tokens, contribution }: Drawn,
  options: VisualAttributionOptions,
): Promise<DrawnMap> {
  const { error = mapDefaults.error, budget = mapDefaults.budget } = options;
  const running = new RunningMap(tokens);
  let round = Math.min(firstRound, budget);
  for (;;) {
    options.signal?.throwIfAborted();
    const half = Math.max(1, Math.floor(round / 2));
    const noise = new Float32Array(2 * half * width);
    noise.set(random.normals(half * width, scale));
    for (let i = 0; i < half * width; i++) noise[half * width + i] = -noise[i]!;
    running.add((await contribution(f32(noise, [2 * half, width]))).data, 2 * half, true);
    const draws = 2 * running.units;
    const estimate = running.estimate();
    const map = judged(estimate, draws, error);
    const surelyNone = estimate.total + 2 * estimate.totalError < noWeight;
    if ((map.converged && map.carriesWeight) || surelyNone || draws + 2 > budget) return map;
    // Errors fall with the root of the number of draws.
    const needed =
      draws *
      Math.max(
        (map.error / error) ** 2,
        (1 - map.agreement) / (1 - leastAgreement),
        (estimate.totalError / estimate.total / totalBound) ** 2,
      );
    round = Math.min(budget - draws, draws, Math.max(firstRound / 2, 1.1 * needed - draws));
  }
}

function judged({ total, totalError, ...map }: MapEstimate, draws: number, bound: number): DrawnMap {
  const converged = map.error <= bound && map.agreement >= leastAgreement && totalError <= totalBound * total;
  return { ...map, draws, converged, carriesWeight: total >= noWeight };
}

/**
 * One map of several layers: the mean of their maps, each with the sum 1, of the layers that carry weight. On the minis it names what the answer hangs on
 * better than any one layer's map, and than the sum of all.
 */
export function combinedMap(maps: readonly Pick<VisualAttribution, 'values' | 'carriesWeight'>[]): number[] {
  const read = maps.filter(({ carriesWeight }) => carriesWeight);
  const totals = read.map(({ values }) => values.reduce((a, b) => a + b, 0));
  return (maps[0]?.values ?? []).map(
    (_, i) => read.reduce((sum, { values }, n) => sum + values[i]! / totals[n]!, 0) / Math.max(1, read.length),
  );
}

/**
 * Attribution of every visual token [v] of one sequence at one layer, in [0, 1] (Eq. 6-8).
 * @param batch one sequence with a picture
 * @param options.layer decoder layer, from 0
 * @throws Error that names the layers there are, or when the batch is not one sequence with a picture
 */
export async function visualAttribution(
  vlm: Vlm,
  batch: Batch,
  options: VisualAttributionOptions & { layer: number },
): Promise<VisualAttribution> {
  return (await visualAttributions(vlm, batch, [options.layer], options))[0]!;
}

/** @throws Error that names the layers there are */
export function checkLayer(vlm: Vlm, layer: number): void {
  const { layers } = vlm.decoder;
  if (!Number.isInteger(layer) || layer < 0 || layer >= layers) {
    throw new Error(`layer ${layer} is out of range: ${vlm.name} has layers 0 to ${layers - 1}`);
  }
}
