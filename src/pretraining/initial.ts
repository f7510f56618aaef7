/** Starting weights of a mini: normal with 0.6 / sqrt(fan-in), norms at one, biases at zero, W_K near W_Q. */

import { f32, sizeOf, type Tensor } from '../graph/dtype.ts';
import { Random } from '../random.ts';

/**
 * Mimetic initialisation (Trockman & Kolter 2023): W_K = 0.9 W_Q + 0.44 noise, so that equal content attends to itself from the first step.
 * Without it, matching a word against the picture stays at chance for thousands of steps.
 */
const KEY_SHARE = 0.9;
const KEY_NOISE = 0.44;

export function initialWeights(shapes: ReadonlyMap<string, readonly number[]>, seed: string | number, mimetic: (name: string) => string | undefined = () => undefined): Map<string, Tensor<'float32'>> {
  const out = new Map<string, Tensor<'float32'>>();
  const draw = (name: string, shape: readonly number[]): Float32Array => {
    const random = new Random(`${seed}/initial/${name}`);
    const embedding = /embed|query_tokens|position/.test(name);
    const fanIn = shape.length > 1 ? sizeOf(shape.slice(1)) : 1;
    return random.normals(sizeOf(shape), /embed_tokens/.test(name) ? shape[1]! ** -0.5 : embedding ? 0.02 : 0.6 / Math.sqrt(fanIn));
  };
  for (const [name, shape] of shapes) {
    if (shape.length === 1 && !/embedding/.test(name)) {
      out.set(name, f32(new Float32Array(sizeOf(shape)).fill(/norm.*weight|layrnorm\.weight/.test(name) ? 1 : 0), shape));
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
