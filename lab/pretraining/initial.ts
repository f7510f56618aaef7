/** Starting weights of a mini: normal with gain / sqrt(fan-in), norms at one, biases at zero, W_K near W_Q. */

import { f32, sizeOf, type Tensor } from '../../src/graph/dtype.ts';
import { Random } from '../../src/random.ts';

/**
 * Mimetic initialisation (Trockman & Kolter 2023): W_K = 0.9 W_Q + 0.44 noise, so that equal content attends to itself from the first step.
 * Without it, matching a word against the picture stays at chance for thousands of steps.
 */
const KEY_SHARE = 0.9;
const KEY_NOISE = 0.44;

/**
 * Gains by kind of weight. A decoder's queries and keys at gain 1 make a matching visual token stand out by e^5 in the first layer: at 0.6 it
 * is e^1.8, and matching was still at chance after 600 steps. What writes into the residual stream starts small; the first connector map tames
 * the tower's features, whose root mean square is near 10. A Q-Former's cross-attention is sharp and the talk among its query tokens quiet, so
 * that each token reads the place whose code it starts as.
 */
function gainOf(name: string): number {
  if (/crossattention\.\w+\.(query|key)\.weight$/.test(name)) return 1.5;
  if (/[Qq]former.*\.attention\.output\.dense\.weight$/.test(name)) return 0.2;
  if (/deepstack_merger_list\.\d+\.linear_fc2\.weight$/.test(name)) return 0.3;
  if (/\.merger\.linear_fc2\.weight$/.test(name)) return 1.5;
  if (/^vision|^model\.visual\.blocks|visual_encoder|[Qq]former/.test(name)) return 0.6;
  if (/(o_proj|down_proj|out_proj|fc2)\.weight$/.test(name)) return 0.3;
  if (/linear_1\.weight$/.test(name)) return 0.1;
  if (/(linear_2|projection|llama_proj)\.weight$/.test(name)) return 1.5;
  return 1;
}

/** Learned positions of a decoder start as waves (Vaswani et al. 2017), small beside the words: the word before is found from the first step. */
function waves([positions, d]: readonly [number, number], amplitude = 0.05): Float32Array {
  const out = new Float32Array(positions * d);
  for (let p = 0; p < positions; p++)
    for (let i = 0; i < d; i++) {
      const angle = p / 10000 ** ((2 * Math.floor(i / 2)) / d);
      out[p * d + i] = amplitude * (i % 2 === 0 ? Math.sin(angle) : Math.cos(angle));
    }
  return out;
}

export function initialWeights(
  shapes: ReadonlyMap<string, readonly number[]>,
  seed: string | number,
  mimetic: (name: string) => string | undefined = () => undefined,
): Map<string, Tensor<'float32'>> {
  const out = new Map<string, Tensor<'float32'>>();
  const draw = (name: string, shape: readonly number[]): Float32Array => {
    const random = new Random(`${seed}/initial/${name}`);
    const embedding = /embed|query_tokens|position/.test(name);
    const fanIn = shape.length > 1 ? sizeOf(shape.slice(1)) : 1;
    return random.normals(
      sizeOf(shape),
      /embed_tokens/.test(name) ? shape[1]! ** -0.5 : embedding ? 0.02 : gainOf(name) / Math.sqrt(fanIn),
    );
  };
  for (const [name, shape] of shapes) {
    const norm = /norm|ln_vision/i.test(name);
    if (shape.length === 1 && (norm || !/embedding/.test(name))) {
      out.set(name, f32(new Float32Array(sizeOf(shape)).fill(norm && name.endsWith('weight') ? 1 : 0), shape));
      continue;
    }
    if (/embed_positions/.test(name)) {
      out.set(name, f32(waves(shape as [number, number]), shape));
      continue;
    }
    const query = mimetic(name);
    const data = draw(name, shape);
    if (query !== undefined) {
      const q = draw(query, shape);
      for (let i = 0; i < data.length; i++) data[i] = KEY_SHARE * q[i]! + KEY_NOISE * data[i]!;
    }
    out.set(name, f32(data, shape));
  }
  return out;
}
