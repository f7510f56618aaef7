/** Module contributions averaged over a data set (figures 1, 5 and 6 of the paper): each input's own, normalised by its own largest logit. */

import { type Prompt, pictureCount, type RgbImage } from '../input/segments.ts';
import type { Vlm } from '../models/vlm.ts';
import { type ModuleContribution, moduleContribution } from './module-contribution.ts';

export interface AttributedInput {
  prompt: Prompt;
  /** a function where pictures are many: it is called when its batch comes */
  image?: RgbImage | (() => Promise<RgbImage>) | undefined;
  /** key token; absent: the predicted one */
  keyId?: number | undefined;
}

export interface AverageContribution {
  count: number;
  /** mean over the inputs, by layer */
  contribution: { attn: number[]; mlp: number[] };
  /** mean probability of the key token, by layer */
  prob: { attn: number[]; mlp: number[]; layer: number[] };
  logit: { attn: number[]; mlp: number[]; layer: number[] };
  /** each input's key token, in the order of the inputs */
  tokenIds: number[];
}

export interface AverageOptions {
  /** inputs that run together */
  batch?: number;
  signal?: AbortSignal | undefined;
  onProgress?: (done: number) => void;
}

const hasPicture = ({ prompt, image }: AttributedInput): boolean => image !== undefined || pictureCount({ prompt }) > 0;

/**
 * Mean of the module contributions [layers] over a data set (Fig. 1 and 5). Inputs with a picture and without may be mixed.
 * @throws Error when there are none
 */
export async function averageModuleContribution(
  vlm: Vlm,
  inputs: readonly AttributedInput[],
  { batch = 8, signal, onProgress }: AverageOptions = {},
): Promise<AverageContribution> {
  const total = new Totals(vlm.decoder.layers);
  const tokenIds = new Array<number>(inputs.length);
  for (const withImage of [true, false]) {
    const group = inputs.flatMap((input, index) => (hasPicture(input) === withImage ? [{ ...input, index }] : []));
    for (let at = 0; at < group.length; at += batch) {
      signal?.throwIfAborted();
      const part = group.slice(at, at + batch);
      const images = await Promise.all(part.map(({ image }) => (typeof image === 'function' ? image() : image)));
      const sequences = part.map(({ prompt }, i) => vlm.layout({ prompt, image: images[i] }));
      const found = await moduleContribution(
        vlm,
        await vlm.batch(sequences),
        part.map(({ keyId }) => keyId),
      );
      found.forEach((one, i) => {
        total.add(one);
        tokenIds[part[i]!.index] = one.tokenId;
      });
      onProgress?.(total.count);
    }
  }
  return { ...total.mean(), tokenIds };
}

const fields = [
  'contribution.attn',
  'contribution.mlp',
  'prob.attn',
  'prob.mlp',
  'prob.layer',
  'logit.attn',
  'logit.mlp',
  'logit.layer',
];

const read = (of: ModuleContribution, field: string): readonly number[] => {
  const [kind, module] = field.split('.') as ['contribution' | 'prob' | 'logit', 'attn' | 'mlp'];
  return of[kind][module];
};

class Totals {
  count = 0;
  readonly #sums: Map<string, Float64Array>;

  constructor(layers: number) {
    this.#sums = new Map(fields.map((field) => [field, new Float64Array(layers)]));
  }

  add(one: ModuleContribution): void {
    this.count++;
    for (const [field, sum] of this.#sums) {
      read(one, field).forEach((value, i) => {
        sum[i]! += value;
      });
    }
  }

  mean(): Omit<AverageContribution, 'tokenIds'> {
    if (this.count === 0) throw new Error('an average of module contributions needs at least one input; none was given');
    const of = (field: string): number[] => Array.from(this.#sums.get(field)!, (sum) => sum / this.count);
    return {
      count: this.count,
      contribution: { attn: of('contribution.attn'), mlp: of('contribution.mlp') },
      prob: { attn: of('prob.attn'), mlp: of('prob.mlp'), layer: of('prob.layer') },
      logit: { attn: of('logit.attn'), mlp: of('logit.mlp'), layer: of('logit.layer') },
    };
  }
}
