/** The size of a model as its weights would be kept, for the estimate of memory. */

import type { Checkpoint } from '../files/folder.ts';
import { sizeOf } from '../graph/dtype.ts';
import { type Architecture, usualTokens } from './architecture.ts';
import { type ModelSize, type PartSize, storedBytes } from './memory.ts';
import type { WeightType } from './weight-types.ts';
import { blocksOf, storedBlocks, type WeightUse } from './weights.ts';

/** Tokens of a question beside the picture. */
const QUESTION = 64;

/** The bytes of a model whose floats are kept in another type. */
export function sizeAs(size: ModelSize, type: WeightType): ModelSize {
  const kept = (part: PartSize): PartSize => ({ ...part, bytes: storedBytes(part, type === 'float32' ? 4 : 2) });
  return { ...size, vision: kept(size.vision), decoder: kept(size.decoder) };
}

/** @param type what weights are kept as; as they are stored when left out */
export function modelSize(
  architecture: Architecture,
  uses: ReadonlyMap<string, WeightUse>,
  checkpoint: Checkpoint,
  type?: WeightType,
): ModelSize {
  const { decoder } = architecture;
  let largest = 0;
  let mlp = 0;
  const count = (of: (use: WeightUse) => boolean): PartSize => {
    const numbers = { floats: 0, int8: 0, int4: 0 };
    let bytes = 0;
    for (const [name, use] of uses) {
      if (!of(use)) continue;
      const total = sizeOf(use.shape);
      const bits = (storedBlocks(checkpoint, name) ?? blocksOf(type ?? 'float32', use))?.bits;
      const form = bits === undefined ? 'floats' : bits === 8 ? 'int8' : 'int4';
      numbers[form] += total;
      if (form === 'floats') {
        if (use.part !== 'embedding' && use.shape.length > 1) largest = Math.max(largest, total);
        bytes += checkpoint.has(name) ? checkpoint.place(name).entry.bytes : 4 * total;
      }
    }
    return { ...numbers, bytes: bytes + storedBytes({ ...numbers, floats: 0 }, 0) };
  };
  for (const { part, shape, linear } of uses.values()) if (part === 'layers' && linear) mlp = Math.max(mlp, ...shape);
  return {
    vision: count(({ part }) => part === 'vision'),
    decoder: count(({ part }) => part !== 'vision'),
    layers: decoder.layers,
    hidden: decoder.hidden,
    mlp,
    heads: decoder.heads,
    keyWidth: decoder.keyHeads * decoder.headWidth,
    vocabulary: decoder.vocabulary,
    tokens: usualTokens(architecture) + QUESTION,
    largest,
  };
}
