/**
 * Visual attribution the slow way, as Eq. 7 is written: the attention module runs again for every perturbed token and draw, and its outputs at
 * the query position are compared. Also a decoder of any shape with random weights to try it on.
 */

import { f32, i64, input, nameOf, parameterOp, type Tensor, topological } from '../../src/graph/index.ts';
import type { Decoder } from '../../src/models/architecture.ts';
import { causalBias } from '../../src/models/batch.ts';
import type { OptConfig } from '../../src/models/configs/opt.ts';
import { type LlamaConfig, llama } from '../../src/models/llama.ts';
import { opt } from '../../src/models/opt.ts';
import { Sites } from '../../src/models/sites.ts';
import { Weights } from '../../src/nn/weights.ts';
import { Random } from '../../src/random.ts';
import { compile } from '../../src/runtime/node.ts';

export interface Shape {
  kind: 'llama' | 'opt';
  heads: number;
  /** query heads for each key head; llama only */
  share: number;
  width: number;
  length: number;
}

export function decoderOf({ kind, heads, share, width, length }: Shape): Decoder {
  const d = heads * share * width;
  if (kind === 'opt') {
    return opt(
      {
        hidden_size: d,
        num_hidden_layers: 1,
        num_attention_heads: heads * share,
        ffn_dim: d,
        vocab_size: 8,
        word_embed_proj_dim: d,
        max_position_embeddings: length,
        activation_function: 'relu',
        enable_bias: true,
        do_layer_norm_before: true,
        layer_norm_elementwise_affine: true,
        tie_word_embeddings: true,
        _remove_final_layer_norm: false,
      } as OptConfig,
      '',
    );
  }
  const config: LlamaConfig = {
    hidden_size: d,
    intermediate_size: d,
    num_hidden_layers: 1,
    num_attention_heads: heads * share,
    num_key_value_heads: heads,
    vocab_size: 8,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    max_position_embeddings: length,
    tie_word_embeddings: true,
    hidden_act: 'silu',
    rope_scaling: undefined,
    attention_bias: false,
    mlp_bias: false,
  };
  return llama(config, '');
}

/** Random weights; `sharpness` scales the queries, so that the softmax falls on one token. */
export function randomWeights(seed: string, sharpness: number): (name: string, shape: readonly number[]) => Tensor<'float32'> {
  const known = new Map<string, Tensor<'float32'>>();
  return (name, shape) => {
    const before = known.get(name);
    if (before !== undefined) return before;
    const count = shape.reduce((a, b) => a * b, 1);
    const scale = shape.length === 2 ? shape[1]! ** -0.5 * (/q_proj/.test(name) ? sharpness : 1) : 0.1;
    const data = new Random(`${seed}/${name}`).normals(count, scale);
    if (/norm.*weight/.test(name)) for (let i = 0; i < count; i++) data[i]! += 1;
    const made = f32(data, shape);
    known.set(name, made);
    return made;
  };
}

/** Compiles outputs with the weights bound to random values. */
export function compileRandom(outputs: Parameters<typeof compile>[0], weightOf: ReturnType<typeof randomWeights>) {
  const shapes = new Map(
    topological(Object.values(outputs))
      .filter((n) => n.op === parameterOp)
      .map((n) => [nameOf(n), n.shape as number[]]),
  );
  return compile(outputs, { threads: 1, weights: (name) => weightOf(name, shapes.get(name)!) });
}

/** ½ (1 − cos) in doubles. */
export function contribution(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return (1 - dot / Math.sqrt(aa * bb)) / 2;
}

/**
 * C [t, s] by running the module on a copy of its input for each perturbed token and draw.
 * @param state [l, d]: h[l-1] with `hidden`, the module's input without @param noise [t, s, d]
 */
export async function directContribution(
  decoder: Decoder,
  weightOf: ReturnType<typeof randomWeights>,
  state: Tensor<'float32'>,
  tokens: readonly number[],
  noise: Tensor<'float32'>,
  end: number,
  hidden: boolean,
): Promise<{ values: number[]; largestShare: number }> {
  const [l, d] = state.shape as [number, number];
  const s = noise.shape[1]!;
  const w = new Weights();
  const sites = new Sites();
  const x = input('state', ['b', 'l', d]);
  const context = {
    weights: w,
    sites,
    positions: input('positions', ['b', 'l'], 'int64'),
    bias: input('bias', ['b', 1, 'l', 'l']),
  };
  let out = x;
  if (hidden) {
    decoder.layer(0, x, context);
    out = sites.get('layers.0.attn.out');
  } else out = decoder.attention(0, x, context);
  const { query, key } = decoder.project(0, x, context.positions, w);
  const program = await compileRandom({ out, query, key }, weightOf);
  const run = async (data: Float32Array) =>
    program.run({
      state: f32(data, [1, l, d]),
      positions: i64(
        Array.from({ length: l }, (_, i) => i),
        [1, l],
      ),
      bias: causalBias(1, l),
    });
  const rowAt = (t: Tensor | undefined) => (t!.data as Float32Array).slice(end * d, (end + 1) * d);
  const first = await run(state.data);
  const clean = rowAt(first.out);
  const values: number[] = [];
  for (const [i, token] of tokens.entries()) {
    for (let draw = 0; draw < s; draw++) {
      const copy = state.data.slice();
      for (let j = 0; j < d; j++) copy[token * d + j]! += noise.data[(i * s + draw) * d + j]!;
      values.push(contribution(rowAt((await run(copy)).out), clean));
    }
  }
  await program.release();
  return { values, largestShare: largestShare(first.query!, first.key!, decoder.scale, end) };
}

/** The largest probability that any head gives to one token. */
function largestShare(query: Tensor, key: Tensor, scale: number, end: number): number {
  const [, h, l, k] = query.shape as [number, number, number, number];
  const at = (t: Tensor, head: number, row: number) =>
    (t.data as Float32Array).subarray((head * l + row) * k, (head * l + row + 1) * k);
  let best = 0;
  for (let head = 0; head < h; head++) {
    const scores = Array.from(
      { length: end + 1 },
      (_, j) => scale * at(query, head, end).reduce((a, q, i) => a + q * at(key, head, j)[i]!, 0),
    );
    const top = Math.max(...scores);
    best = Math.max(best, 1 / scores.reduce((a, x) => a + Math.exp(x - top), 0));
  }
  return best;
}
