/**
 * The visual edit adapter, VEAD (VisEdit Eq. 14-16), inserted at the output of decoder layer l_e on the visual tokens of inputs with a picture.
 *
 *   ḣ   = softmax(h_v W1 (h̄ W2)ᵀ) h̄ W3        cross-attention to the edit signal h̄                      (14)
 *   C   = σ( f_μ1(h_v) · f_μ2(h̄_end)ᵀ )         influence mapper, one gate per visual token               (15)
 *   ḧ_v = h_v + ḣ × C                                                                                     (16)
 *
 * Details of the authors' code: LayerNorm on h_v and on h̄; the query is q(begin(h_v)); keys, values d -> m; scores over sqrt(m / heads);
 * `end` m -> d. The mapper has its own two LayerNorms and two residual MLPs x + W2 relu(W1 x); dot products per head, mean over heads, over
 * sqrt(d / heads). Weight names are the authors'.
 */

import {
  add,
  type Dim,
  f32,
  gather,
  layerNorm,
  matmul,
  mul,
  mulDim,
  type Node,
  relu,
  reshape,
  scope,
  sigmoid,
  softmax,
  type Tensor,
} from '../../graph/index.ts';
import { linear, mergeHeads, splitHeads } from '../../nn/layers.ts';
import type { Weights } from '../../nn/weights.ts';
import type { Random } from '../../random.ts';

export interface AdapterShape {
  /** d, the decoder's hidden size */
  hidden: number;
  /** m */
  width: number;
  heads: number;
  /** width of the influence mapper's MLPs */
  influenceWidth: number;
}

/** Parts that the ablation removes (Table 3). */
export interface AdapterParts {
  /** false: the gate is 1 everywhere */
  influenceMapper: boolean;
  /** false: no edit signal reaches the visual tokens; they pass through `begin`, `q` and `end` alone */
  crossAttention: boolean;
}

export interface EditSignal {
  /** h̄ [e, n, d]: layer-l_e output of the unedited model over (image, prompt ⊕ target) */
  signal: Node;
  /** additive bias of its positions [e, n]: 0, or very negative at padding */
  bias: Node;
  /** int64 [e], flat position e * n + promptEnd */
  ends: Node;
}

const defaultHeads = 8;

/** Names and shapes of the adapter's weights; words stand for sizes that are not known. */
export function adapterShapes<S extends number | string>({
  hidden: d,
  width: m,
  influenceWidth: i,
}: Readonly<Record<'hidden' | 'width' | 'influenceWidth', S>>): Map<string, readonly S[]> {
  const map = (name: string, from: S, to: S): [string, readonly S[]][] => [
    [`${name}.weight`, [to, from]],
    [`${name}.bias`, [to]],
  ];
  const norm = (name: string): [string, readonly S[]][] => [
    [`${name}.weight`, [d]],
    [`${name}.bias`, [d]],
  ];
  return new Map([
    ...map('mlp_begin', d, m),
    ...map('cross_att_q_mlp', m, m),
    ...map('cross_att_k_mlp', d, m),
    ...map('cross_att_v_mlp', d, m),
    ...map('mlp_end', m, d),
    ...norm('ln_img_reps'),
    ...norm('ln_edit_reps'),
    ...norm('influence_mapper.ln_img_reps'),
    ...norm('influence_mapper.ln_edit_reps'),
    ...map('influence_mapper.img_map.l_in', d, i),
    ...map('influence_mapper.img_map.l_out', i, d),
    ...map('influence_mapper.prompt_token_map.l_in', d, i),
    ...map('influence_mapper.prompt_token_map.l_out', i, d),
  ]);
}

/** The shape that stored weights imply. */
export function adapterShapeOf(weights: ReadonlyMap<string, Tensor>, heads = defaultHeads): AdapterShape {
  const [begin, mapper] = ['mlp_begin.weight', 'influence_mapper.img_map.l_in.weight'].map((name) => weights.get(name)?.shape);
  if (begin === undefined || mapper === undefined)
    throw new Error('these are not VEAD weights: mlp_begin.weight or influence_mapper.img_map.l_in.weight is missing');
  return { hidden: begin[1]!, width: begin[0]!, heads, influenceWidth: mapper[0]! };
}

const norm = (w: Weights, name: string, x: Node, d: number): Node =>
  layerNorm(x, w.get(`${name}.weight`, [d]), w.get(`${name}.bias`, [d]), 1e-5);

function residual(w: Weights, name: string, x: Node, d: number, width: number): Node {
  return add(linear(w, `${name}.l_out`, relu(linear(w, `${name}.l_in`, x, d, width)), width, d), x);
}

/** Repeats the rows of [e, ...] for every group of a batch of g·e rows. */
export type Spread = (perEdit: Node) => Node;

/** f_μ1(h_v) of visual tokens [b, v, d]. */
const mappedImage = (w: Weights, { hidden: d, influenceWidth }: AdapterShape, visual: Node): Node =>
  scope('mappedImage', () =>
    residual(w, 'influence_mapper.img_map', norm(w, 'influence_mapper.ln_img_reps', visual, d), d, influenceWidth),
  );

/** f_μ2(h̄_end) of prompts' last tokens [n, d]. */
const mappedPrompt = (w: Weights, { hidden: d, influenceWidth }: AdapterShape, ends: Node): Node =>
  residual(w, 'influence_mapper.prompt_token_map', norm(w, 'influence_mapper.ln_edit_reps', ends, d), d, influenceWidth);

/** The mean over heads of per-head dot products over sqrt(d / heads) is the whole dot product over heads sqrt(d / heads). */
const perHead = ({ hidden: d, heads }: AdapterShape, dots: Node): Node =>
  mul(dots, 1 / (heads * Math.sqrt(Math.floor(d / heads))));

/** f_μ1(h_v) · f_μ2(h̄_end), [b, v]: the gate before its sigmoid (Eq. 15). */
export function influenceMapper(
  w: Weights,
  shape: AdapterShape,
  visual: Node,
  promptEnd: Node,
  mapped = mappedImage(w, shape, visual),
): Node {
  const [b, v, d] = visual.shape as [Dim, Dim, number];
  return scope('influenceMapper', () => {
    const dots = matmul(mapped, reshape(mappedPrompt(w, shape, promptEnd), [b, d, 1]));
    return perHead(shape, reshape(dots, [b, v]));
  });
}

/** Gates before their sigmoid, [b, v, n], of every picture's visual tokens f_μ1(h_v) [b, v, d] under every edit, by prompts' last tokens [n, d]. */
export function allGates(w: Weights, shape: AdapterShape, mapped: Node, ends: Node): Node {
  return scope('allGates', () => perHead(shape, matmul(mapped, mappedPrompt(w, shape, ends), false, true)));
}

/**
 * ḣ (Eq. 14) mapped back to the width of the states x [b, n, d].
 * @param names what stands before the names of the weights, and the norm of x
 */
export function attendedChange(
  w: Weights,
  { hidden: d, width: m, heads }: Pick<AdapterShape, 'hidden' | 'width' | 'heads'>,
  x: Node,
  edit: Pick<EditSignal, 'signal' | 'bias'>,
  spread: Spread = (y) => y,
  crossAttention = true,
  names = { before: '', norm: 'ln_img_reps' },
): Node {
  const [e, n] = edit.signal.shape as [Dim, Dim, number];
  const named = (name: string): string => names.before + name;
  const map = (name: string, y: Node, from: number, to: number): Node => linear(w, named(name), y, from, to);
  const query = map('cross_att_q_mlp', map('mlp_begin', norm(w, named(names.norm), x, d), d, m), m, m);
  let mixed = query;
  if (crossAttention) {
    const signal = norm(w, named('ln_edit_reps'), edit.signal, d);
    const key = spread(splitHeads(map('cross_att_k_mlp', signal, d, m), heads));
    const value = spread(splitHeads(map('cross_att_v_mlp', signal, d, m), heads));
    const scores = mul(matmul(splitHeads(query, heads), key, false, true), 1 / Math.sqrt(Math.floor(m / heads)));
    mixed = mergeHeads(matmul(softmax(add(scores, spread(reshape(edit.bias, [e, 1, 1, n])))), value));
  }
  return map('mlp_end', mixed, m, d);
}

/**
 * ḧ_v, the gate's logits, and f_μ1(h_v).
 * @param visual h_v [b, v, d] @param spread repeats what belongs to an edit for the rows of the batch (identity for one edit per row)
 */
export function visualEditAdapter(
  w: Weights,
  shape: AdapterShape,
  visual: Node,
  edit: EditSignal,
  parts: AdapterParts = { influenceMapper: true, crossAttention: true },
  spread: Spread = (x) => x,
): { output: Node; gate: Node; mapped: Node } {
  const { hidden: d } = shape;
  return scope('vead', () => {
    const [e, n] = edit.signal.shape as [Dim, Dim, number];
    const end = gather(reshape(edit.signal, [mulDim(e, n), d]), edit.ends);
    const mapped = mappedImage(w, shape, visual);
    const gate = influenceMapper(w, shape, visual, spread(end), mapped);
    const change = attendedChange(w, shape, visual, edit, spread, parts.crossAttention);
    const b = visual.dim(0);
    const gated = parts.influenceMapper ? mul(change, reshape(sigmoid(gate), [b, visual.dim(1), 1])) : change;
    return { output: add(visual, gated), gate, mapped };
  });
}

/** Starting weights: as torch's Linear (uniform within 1/sqrt(fan-in)) and LayerNorm. */
export function initialAdapter(shape: AdapterShape, random: Random, valueCopy = false): Map<string, Tensor<'float32'>> {
  const out = new Map<string, Tensor<'float32'>>();
  for (const [name, dims] of adapterShapes(shape)) {
    const fanIn = adapterShapes(shape).get(name.replace(/bias$/, 'weight'))!.at(-1)!;
    const size = dims.reduce((a, b) => a * b, 1);
    const draw = random.fork(name);
    const isNorm = /(^|\.)ln_/.test(name);
    const bound = 1 / Math.sqrt(fanIn);
    out.set(
      name,
      f32(
        isNorm
          ? new Float32Array(size).fill(name.endsWith('weight') ? 1 : 0)
          : Float32Array.from({ length: size }, () => (2 * draw.uniform() - 1) * bound),
        dims,
      ),
    );
  }
  if (valueCopy) {
    // end · value starts near the identity: target words and visual tokens share one space, so what is attended to is written as it is.
    const value = out.get('cross_att_v_mlp.weight')!.data;
    const end = out.get('mlp_end.weight')!.data;
    const { hidden: d, width: m } = shape;
    const scale = 1 / Math.max(1, Math.sqrt(m / d));
    const noise = random.fork('value copy').normals(m * d, scale / Math.sqrt(d));
    for (let i = 0; i < m; i++)
      for (let j = 0; j < d; j++) {
        value[i * d + j] = noise[i * d + j]!;
        end[j * m + i] = noise[i * d + j]!;
      }
    out.get('cross_att_v_mlp.bias')!.data.fill(0);
    out.get('mlp_end.bias')!.data.fill(0);
  }
  return out;
}
