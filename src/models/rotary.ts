/**
 * Rotary positions (Su et al. 2021) and their scalings for longer texts than a decoder was trained on. Reference: transformers 5.24
 * `modeling_rope_utils.py`. Numbers are rounded to float32 where the reference rounds.
 */

import type { Dim } from '../graph/dim.ts';
import { f32 } from '../graph/dtype.ts';
import { cast, constant, cos, matmul, mul, mulDim, type Node, range, reshape, rotary, sin } from '../graph/index.ts';
import type { RopeScaling } from './configs/rope.ts';

const f = Math.fround;

/** Turns per position of the pairs of a head's numbers [width / 2], and the factor of the cosines and sines. */
export function rotaryFrequencies(
  width: number,
  theta: number,
  scaling: RopeScaling = { rope_type: 'default' },
): { turns: Float32Array; attention: number } {
  const half = width / 2;
  /** theta^(2j/k) */
  const waves = Float32Array.from({ length: half }, (_, j) => theta ** f((2 * j) / width));
  const plain = waves.map((wave) => 1 / wave);
  switch (scaling.rope_type) {
    case 'default':
    case 'dynamic':
      return { turns: plain, attention: 1 };
    case 'linear':
      return { turns: plain.map((turn) => turn / scaling.factor), attention: 1 };
    case 'llama3':
      return { turns: plain.map((turn) => llama3(turn, scaling)), attention: 1 };
    case 'proportional': {
      // Only the first pairs are turned.
      const turned = Math.trunc((scaling.partial_rotary_factor * width) / 2);
      return { turns: plain.map((turn, j) => (j < turned ? turn / scaling.factor : 0)), attention: 1 };
    }
    case 'longrope': {
      // max_position_embeddings ends where the long factors begin (configs/llama.ts).
      const { factor, short_factor, original_max_position_embeddings: length } = scaling;
      const inferred = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(length));
      return {
        turns: waves.map((wave, j) => 1 / f(f(short_factor[j]!) * wave)),
        attention: scaling.attention_factor ?? inferred,
      };
    }
    case 'yarn':
      return yarn(waves, width, theta, scaling);
  }
}

type Of<K extends RopeScaling['rope_type']> = Extract<RopeScaling, { rope_type: K }>;

/** Short waves stay, waves longer than the first training's texts are stretched, and those between are mixed. */
function llama3(turn: number, scaling: Of<'llama3'>): number {
  const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length } = scaling;
  const waves = length / ((2 * Math.PI) / turn);
  if (waves > high) return turn;
  if (waves < low) return turn / factor;
  const share = (waves - low) / (high - low);
  return ((1 - share) * turn) / factor + share * turn;
}

/** YaRN (Peng et al. 2023): pairs that turn often in the first training's texts stay, those that turn rarely are stretched. */
function yarn(
  waves: Float32Array,
  width: number,
  theta: number,
  scaling: Of<'yarn'>,
): { turns: Float32Array; attention: number } {
  const { factor, original_max_position_embeddings: length, mscale, mscale_all_dim } = scaling;
  /** the pair that turns `times` times in `length` positions */
  const pairOf = (times: number): number => (width * Math.log(length / (times * 2 * Math.PI))) / (2 * Math.log(theta));
  const truncate = scaling.truncate ?? true;
  const [low, high] = [pairOf(scaling.beta_fast ?? 32), pairOf(scaling.beta_slow ?? 1)];
  const first = Math.max(truncate ? Math.floor(low) : low, 0);
  const end = Math.min(truncate ? Math.ceil(high) : high, width - 1);
  const last = first === end ? end + 0.001 : end;
  const turns = waves.map((wave, j) => {
    const stretched = Math.min(1, Math.max(0, f(f(j - f(first)) / f(last - first))));
    const kept = f(1 - stretched);
    return f(f(1 / f(factor * wave)) * f(1 - kept)) + f(f(1 / wave) * kept);
  });
  const temperature = (by: number): number => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1);
  const inferred = mscale && mscale_all_dim ? temperature(mscale) / temperature(mscale_all_dim) : temperature(1);
  return { turns, attention: scaling.attention_factor ?? inferred };
}

/** Turns the heads [b, h, l, k] of tokens by their positions. */
export type Rotation = (x: Node) => Node;

/**
 * Rotary positions with one axis: int64 [b, l].
 * @param positions the longest input
 */
export function rotation(positions: number, width: number, theta: number, scaling?: RopeScaling): (at: Node) => Rotation {
  const tables = rotaryTables(positions, width, theta, scaling);
  return (at) => (x) => rotary(x, at, tables.cos, tables.sin);
}

/**
 * Cosines and sines [b l, k/2] of tokens whose positions have several axes, of which each turns pairs of its own: int64 [axes, b, l].
 * @param axisOf the axis that turns pair j of a head @param turns of every pair per position
 */
export function axialTables(
  axes: number,
  axisOf: (pair: number) => number,
  { turns, attention }: { turns: Float32Array; attention: number },
): (at: Node) => { cos: Node; sin: Node } {
  const half = turns.length;
  const own = new Float32Array(axes * half);
  turns.forEach((turn, j) => {
    own[axisOf(j) * half + j] = turn;
  });
  const byAxis = constant(f32(own, [axes, half]));
  return (at) => {
    const tokens = mulDim(...at.shape.slice(1));
    // All terms of a sum but one are 0, so that the product rounds as the position times the turn does.
    const angles = matmul(reshape(cast(at, 'float32'), [axes, tokens]), byAxis, true);
    const by = (table: Node): Node => (attention === 1 ? table : mul(table, attention));
    return { cos: by(cos(angles)), sin: by(sin(angles)) };
  };
}

/** Rotary positions with several axes: int64 [axes, b, l]. */
export function axialRotation(...of: Parameters<typeof axialTables>): (at: Node) => Rotation {
  const tables = axialTables(...of);
  return (at) => {
    const turned = tables(at);
    const [, b, l] = at.shape as [number, Dim, Dim];
    const rows = reshape(range(mulDim(b, l)), [b, l]);
    return (x) => rotary(x, rows, turned.cos, turned.sin);
  };
}

/** How the pairs of a head are shared out among the axes of a position: M-RoPE of Qwen2.5-VL, and interleaved of Qwen3-VL. */
export interface RotarySections {
  /** pairs of each axis */
  readonly sections: readonly number[];
  readonly interleaved: boolean;
}

/**
 * The axis that turns a pair. In sections: one axis after the other. Interleaved: axes in turn, as long as each has pairs left; the first
 * axis has the rest (`recomposition_frequencies` of transformers 5.24).
 */
export const sectionAxis =
  ({ sections, interleaved }: RotarySections) =>
  (pair: number): number => {
    const axes = sections.length;
    if (interleaved) return pair < axes * sections[pair % axes]! ? pair % axes : 0;
    let end = 0;
    return sections.findIndex((pairs) => {
      end += pairs;
      return pair < end;
    });
  };

/** Cosines and sines [positions, k/2]. */
function rotaryTables(positions: number, width: number, theta: number, scaling?: RopeScaling): { cos: Node; sin: Node } {
  const half = width / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  const { turns, attention } = rotaryFrequencies(width, theta, scaling);
  const by = f(attention);
  for (let p = 0; p < positions; p++) {
    for (let j = 0; j < half; j++) {
      const angle = f(p * turns[j]!);
      cos[p * half + j] = f(Math.cos(angle)) * by;
      sin[p * half + j] = f(Math.sin(angle)) * by;
    }
  }
  return { cos: constant(f32(cos, [positions, half])), sin: constant(f32(sin, [positions, half])) };
}
