/**
 * SERAC's counterfactual model: a small decoder of its own that reads an edit and a query as texts and says what the query's answer is under the edit,
 *   request's prompt ‖ target ‖ query ‖ answer.
 * Between the backbone's frozen word embeddings and its frozen head (norm and vocabulary matrix) stand trained parts: a map d → w, embeddings of the
 * segment and of the place within it, pre-norm layers of attention and ReLU MLP, and a map w → d, which starts as the transpose of the first.
 *
 * It reads no pictures: those are what decides whether a query is in scope, and that is the classifier's part.
 */

import {
  add,
  constant,
  f32,
  gather,
  i64,
  input,
  layerNorm,
  mulDim,
  type Node,
  relu,
  reshape,
  type Tensor,
} from '../../graph/index.ts';
import { causalBias } from '../../models/batch.ts';
import type { Vlm } from '../../models/vlm.ts';
import { attend, linear, mergeHeads, splitHeads } from '../../nn/layers.ts';
import { Weights } from '../../nn/weights.ts';
import type { Random } from '../../random.ts';
import type { Feeds } from '../../runtime/program.ts';

export interface CounterfactualShape {
  readonly hidden: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** tokens of each segment; longer prompts and queries lose their beginnings */
  readonly window: number;
}

const segments = 4;

export function counterfactualShapes({
  hidden: d,
  width: w,
  layers,
  window,
}: CounterfactualShape): Map<string, readonly number[]> {
  const norm = (name: string, width: number): [string, readonly number[]][] => [
    [`${name}.weight`, [width]],
    [`${name}.bias`, [width]],
  ];
  const matrix = (name: string, from: number, to: number): [string, readonly number[]][] => [
    [`${name}.weight`, [to, from]],
    [`${name}.bias`, [to]],
  ];
  const layer = (name: string): [string, readonly number[]][] => [
    ...norm(`${name}.attn.norm`, w),
    ...['q', 'k', 'v', 'o'].flatMap((part) => matrix(`${name}.attn.${part}`, w, w)),
    ...norm(`${name}.mlp.norm`, w),
    ...matrix(`${name}.mlp.up`, w, 2 * w),
    ...matrix(`${name}.mlp.down`, 2 * w, w),
  ];
  return new Map([
    ...norm('in.norm', d),
    ...matrix('in', d, w),
    ['segments', [segments, w]],
    ['places', [window, w]],
    ...Array.from({ length: layers }, (_, i) => layer(`layers.${i}`)).flat(),
    ...norm('norm', w),
    ...matrix('out', w, d),
  ]);
}

export function initialCounterfactual(shape: CounterfactualShape, random: Random): Map<string, Tensor<'float32'>> {
  const weights = new Map(
    [...counterfactualShapes(shape)].map(([name, dims]): [string, Tensor<'float32'>] => {
      const size = dims.reduce((a, b) => a * b, 1);
      if (dims.length === 1) return [name, f32(new Float32Array(size).fill(name.endsWith('norm.weight') ? 1 : 0), dims)];
      return [name, f32(random.fork(name).normals(size, 1 / Math.sqrt(dims[1]!)), dims)];
    }),
  );
  const { hidden: d, width: w } = shape;
  const into = weights.get('in.weight')!.data;
  const out = weights.get('out.weight')!.data;
  for (let i = 0; i < w; i++) for (let j = 0; j < d; j++) out[j * w + i] = into[i * d + j]!;
  return weights;
}

/** Logits [r, n] at `cf.rows` of inputs cf.ids, cf.segments, cf.places [c, s] and cf.bias [c, 1, s, s]. */
export function counterfactualLogits(
  vlm: Vlm,
  w: Weights,
  { hidden: d, width, layers, heads, window }: CounterfactualShape,
): Node {
  const frozen = new Weights();
  const ints = (name: string): Node => input(name, ['c', 's'], 'int64');
  const norm = (name: string, x: Node, n: number): Node => layerNorm(x, w.get(`${name}.weight`, [n]), w.get(`${name}.bias`, [n]));
  const words = norm('in.norm', vlm.decoder.embed(ints('cf.ids'), frozen), d);
  let x = add(
    add(linear(w, 'in', words, d, width), gather(w.get('segments', [segments, width]), ints('cf.segments'))),
    gather(w.get('places', [window, width]), ints('cf.places')),
  );
  const bias = input('cf.bias', ['c', 1, 's', 's']);
  const scale = constant(f32([Math.sqrt(heads / width)], []));
  for (let i = 0; i < layers; i++) {
    const at = `layers.${i}`;
    const y = norm(`${at}.attn.norm`, x, width);
    const part = (name: string): Node => splitHeads(linear(w, `${at}.attn.${name}`, y, width, width), heads);
    const attended = mergeHeads(attend(part('q'), part('k'), part('v'), scale, bias));
    x = add(x, linear(w, `${at}.attn.o`, attended, width, width));
    const up = relu(linear(w, `${at}.mlp.up`, norm(`${at}.mlp.norm`, x, width), width, 2 * width));
    x = add(x, linear(w, `${at}.mlp.down`, up, 2 * width, width));
  }
  const out = linear(w, 'out', norm('norm', x, width), width, d);
  const flat = gather(reshape(out, [mulDim('c', 's'), d]), input('cf.rows', ['r'], 'int64'));
  return vlm.decoder.head(flat, frozen);
}

/** Token ids of what the model reads. */
export interface CounterfactualInput {
  readonly prompt: readonly number[];
  readonly target: readonly number[];
  readonly query: readonly number[];
  /** what is given of the answer */
  readonly answer: readonly number[];
}

/** Feeds of `counterfactualLogits`: the answer is predicted at the query's last token, and at each token of the answer that is given. */
export function counterfactualFeeds(inputs: readonly CounterfactualInput[], window: number): Feeds {
  const rows: { ids: number[]; segments: number[]; places: number[] }[] = inputs.map(({ prompt, target, query, answer }) => {
    const parts = [prompt.slice(-window), target.slice(0, window), query.slice(-window), answer.slice(0, window)];
    return {
      ids: parts.flat(),
      segments: parts.flatMap((part, i) => part.map(() => i)),
      places: parts.flatMap((part) => part.map((_, i) => i)),
    };
  });
  const c = rows.length;
  const s = Math.max(...rows.map(({ ids }) => ids.length));
  const table = (name: 'ids' | 'segments' | 'places'): Tensor => {
    const data = new BigInt64Array(c * s);
    rows.forEach((row, n) => {
      row[name].forEach((value, i) => {
        data[n * s + i] = BigInt(value);
      });
    });
    return i64(data, [c, s]);
  };
  const asked = rows.flatMap(({ ids, segments: of }, n) => {
    const given = of.filter((segment) => segment === segments - 1).length;
    return Array.from({ length: given + 1 }, (_, i) => n * s + ids.length - 1 - given + i);
  });
  return {
    'cf.ids': table('ids'),
    'cf.segments': table('segments'),
    'cf.places': table('places'),
    'cf.bias': causalBias(c, s),
    'cf.rows': i64(asked, [asked.length]),
  };
}
