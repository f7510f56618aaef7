/**
 * The trained modules of LiveEdit (Chen et al. 2025), over the unedited states h [b, l, d] at the output of the edit layer. v are the visual positions,
 * p those after the pictures up to the prompt's end, o the answer's. CA(x, y) is multi-head cross-attention of x's rows to y's without an output map.
 *
 *   vision(h)   = CA(CA(eqe1, LN1 h_p), LN1 h_v)      the visual key φ, [k, m]
 *   query(h)    = CA(eqe2, LN2 h_p)                   the prompt key ψ, [k, m]
 *   sentinel(h) = CA(CA(eqe1, LN1 h_p), LN1 Θ)        the visual key that an edit's must come closer than
 *   U, V        = CA(phi, LN h_{v,p,o}) / (s √r)      an edit's expert, r neurons [r, d] each
 *
 * One extractor reads edits, another one with Θ reads inputs. Names of weights are the authors'.
 */

import {
  add,
  type Dim,
  f32,
  layerNorm,
  matmul,
  mul,
  type Node,
  relu,
  reshape,
  scope,
  softmax,
  type Tensor,
} from '../../graph/index.ts';
import { linear, mergeHeads, splitHeads } from '../../nn/layers.ts';
import type { Weights } from '../../nn/weights.ts';
import type { Random } from '../../random.ts';

export interface LiveEditShape {
  /** d, the decoder's hidden size */
  readonly hidden: number;
  /** m, the width of the keys' vectors and of the attention */
  readonly width: number;
  readonly heads: number;
  /** r, neurons of an expert */
  readonly rank: number;
  /** k, vectors of a key */
  readonly keys: number;
  /** s */
  readonly scale: number;
  /** rows of Θ */
  readonly sentinel: number;
}

/** Additive biases [b, l] that leave out what is not among these positions. */
export interface Places {
  readonly visual: Node;
  readonly prompt: Node;
  /** visual, prompt and answer */
  readonly all: Node;
}

type Sizes<S> = Readonly<Record<'hidden' | 'width' | 'rank' | 'keys' | 'sentinel', S>>;

/** Names and shapes of the weights; words stand for sizes that are not known. */
export function liveEditShapes<S extends number | string>({
  hidden: d,
  width: m,
  rank: r,
  keys: k,
  sentinel,
}: Sizes<S>): Map<string, readonly (S | 1)[]> {
  const norm = (name: string): [string, readonly S[]][] => [
    [`${name}.weight`, [d]],
    [`${name}.bias`, [d]],
  ];
  const attention = (name: string, value: S): [string, readonly S[]][] =>
    (['q', 'k', 'v'] as const).flatMap((part): [string, readonly S[]][] => {
      const out = part === 'v' ? value : m;
      return [
        [`${name}.${part}_mlp.weight`, [out, part === 'q' ? m : d]],
        [`${name}.${part}_mlp.bias`, [out]],
      ];
    });
  const extractor = (name: string): [string, readonly (S | 1)[]][] => [
    [`${name}.eqe1`, [1, k, m]],
    [`${name}.eqe2`, [1, k, m]],
    ...norm(`${name}.layer_norm1`),
    ...norm(`${name}.layer_norm2`),
    ...['ca_query_info_ext1', 'ca_query_info_ext2', 'ca_vision_info_ext'].flatMap((part) => attention(`${name}.${part}`, m)),
  ];
  const maker = (name: string): [string, readonly (S | 1)[]][] => [
    [`${name}.phi`, [1, r, m]],
    ...norm(`${name}.layer_norm`),
    ...attention(`${name}.ca_lora`, d),
  ];
  return new Map<string, readonly (S | 1)[]>([
    ...extractor('edit_extractor'),
    ...extractor('inpt_extractor'),
    ['inpt_extractor.vis_rep_prot', [1, sentinel, d]],
    ...maker('moegen_c'),
    ...maker('moegen_r'),
    ...norm('instant_reps_norm'),
  ]);
}

/** The sizes that stored weights imply. */
export function liveEditShapeOf(
  weights: ReadonlyMap<string, Tensor>,
  { heads, scale }: Pick<LiveEditShape, 'heads' | 'scale'>,
): LiveEditShape {
  const [query, phi, theta] = ['edit_extractor.eqe1', 'moegen_c.phi', 'inpt_extractor.vis_rep_prot'].map((name) => {
    const found = weights.get(name)?.shape;
    if (found === undefined) throw new Error(`these are not weights of live-edit: ${name} is missing`);
    return found as readonly [number, number, number];
  }) as [readonly [number, number, number], readonly [number, number, number], readonly [number, number, number]];
  return { hidden: theta[2], width: query[2], heads, rank: phi[1], keys: query[1], scale, sentinel: theta[1] };
}

const norm = (w: Weights, name: string, x: Node, d: number): Node =>
  layerNorm(x, w.get(`${name}.weight`, [d]), w.get(`${name}.bias`, [d]), 1e-5);

/** CA(x, y) [b, n, value] of x [1 or b, n, m] to rows y [1 or b, l, d]; `bias` [b, l] leaves rows out. */
function crossAttention(w: Weights, name: string, x: Node, y: Node, bias: Node | undefined, shape: LiveEditShape, value: number) {
  const { width: m, heads, hidden: d } = shape;
  const query = splitHeads(linear(w, `${name}.q_mlp`, x, m, m), heads);
  const key = splitHeads(linear(w, `${name}.k_mlp`, y, d, m), heads);
  const scores = mul(matmul(query, key, false, true), 1 / Math.sqrt(Math.floor(m / heads)));
  const seen = bias === undefined ? scores : add(scores, reshape(bias, [bias.dim(0), 1, 1, bias.dim(1)]));
  return mergeHeads(matmul(softmax(seen), splitHeads(linear(w, `${name}.v_mlp`, y, d, value), heads)));
}

/** Keys [b, k m] of states: the visual one, the prompt's, and of the extractor that reads inputs the sentinel. */
export function extract(
  w: Weights,
  name: 'edit_extractor' | 'inpt_extractor',
  hidden: Node,
  places: Places,
  shape: LiveEditShape,
): { visual: Node; prompt: Node; sentinel?: Node } {
  const { width: m, keys: k, hidden: d, sentinel } = shape;
  return scope(name, () => {
    const attend = (part: string, x: Node, y: Node, bias: Node | undefined): Node =>
      crossAttention(w, `${name}.${part}`, x, y, bias, shape, m);
    const flat = (x: Node): Node => reshape(x, [hidden.dim(0) as Dim, k * m]);
    const first = norm(w, `${name}.layer_norm1`, hidden, d);
    const asked = attend('ca_query_info_ext1', w.get(`${name}.eqe1`, [1, k, m]), first, places.prompt);
    const visual = flat(attend('ca_vision_info_ext', asked, first, places.visual));
    const second = norm(w, `${name}.layer_norm2`, hidden, d);
    const prompt = flat(attend('ca_query_info_ext2', w.get(`${name}.eqe2`, [1, k, m]), second, places.prompt));
    if (name === 'edit_extractor') return { visual, prompt };
    const theta = norm(w, `${name}.layer_norm1`, w.get(`${name}.vis_rep_prot`, [1, sentinel, d]), d);
    return { visual, prompt, sentinel: flat(attend('ca_vision_info_ext', asked, theta, undefined)) };
  });
}

/** Experts of edits: U and V [b, r, d] of the states over (picture, prompt, answer). */
export function experts(w: Weights, hidden: Node, { all }: Places, shape: LiveEditShape): { u: Node; v: Node } {
  const { hidden: d, width: m, rank: r, scale } = shape;
  const make = (name: string): Node =>
    scope(name, () => {
      const states = norm(w, `${name}.layer_norm`, hidden, d);
      const made = crossAttention(w, `${name}.ca_lora`, w.get(`${name}.phi`, [1, r, m]), states, all, shape, d);
      return mul(made, 1 / (scale * Math.sqrt(r)));
    });
  return { u: make('moegen_c'), v: make('moegen_r') };
}

/** sim(a, b): the mean over k of <a_j, b_j> / √m is the whole product over k √m. */
export const similarityScale = ({ keys: k, width: m }: LiveEditShape): number => 1 / (k * Math.sqrt(m));

/** R(h) = relu(LN(h) U') diag(c) V of states [b, l, d]; u, v [b or 1, n, d] hold n neurons, c [b, n] what each counts. */
export function residual(w: Weights, hidden: Node, u: Node, v: Node, c: Node, shape: LiveEditShape): Node {
  return scope('experts', () => {
    const gates = relu(matmul(norm(w, 'instant_reps_norm', hidden, shape.hidden), u, false, true));
    return matmul(mul(gates, reshape(c, [c.dim(0), 1, c.dim(1)])), v);
  });
}

/** Starting weights: as torch's Linear (uniform within 1/√fan-in) and LayerNorm; learned rows are Kaiming normal, std √(2 / (rows · width)). */
export function initialLiveEdit(shape: LiveEditShape, random: Random): Map<string, Tensor<'float32'>> {
  const shapes = liveEditShapes<number>(shape);
  return new Map(
    [...shapes].map(([name, dims]): [string, Tensor<'float32'>] => {
      const size = dims.reduce((a, b) => a * b, 1);
      const draw = random.fork(name);
      if (dims.length === 3) return [name, f32(draw.normals(size, Math.sqrt(2 / size)), dims)];
      if (/norm\d?\.(weight|bias)$/.test(name))
        return [name, f32(new Float32Array(size).fill(name.endsWith('weight') ? 1 : 0), dims)];
      const bound = 1 / Math.sqrt(shapes.get(name.replace(/bias$/, 'weight'))!.at(-1)!);
      return [
        name,
        f32(
          Float32Array.from({ length: size }, () => (2 * draw.uniform() - 1) * bound),
          dims,
        ),
      ];
    }),
  );
}
