/** Module contributions averaged over the mini E-VQA, to right and to wrong key tokens (figures 1, 5 and 6). */

import { type AverageContribution, averageModuleContribution } from '../../../src/attribution/dataset-average.ts';
import { meanOf } from '../../../src/attribution/map-measures.ts';
import { decodeImage } from '../../../src/input/image/decode.ts';
import type { EditRecord } from '../../../src/input/records.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import { type Claim, times } from './figure.ts';

/** Contributions to the token that the model says. */
export function rightContributions(vlm: Vlm, records: readonly EditRecord[], signal?: AbortSignal): Promise<AverageContribution> {
  return averageModuleContribution(
    vlm,
    records.map(({ request: { prompt, image } }) => ({ prompt, image: () => decodeImage(image) })),
    { signal },
  );
}

/** Contributions, in the same runs of the same questions, to the answers of the records' locality samples, with or without a picture; answers that are right by chance are left out. */
export async function wrongContributions(
  vlm: Vlm,
  records: readonly EditRecord[],
  right: AverageContribution,
  signal?: AbortSignal,
): Promise<AverageContribution> {
  const inputs = records.flatMap(({ request: { prompt, image }, queries: { textLocality, modalLocality } }, i) => {
    const ids = new Set(
      [textLocality, modalLocality].map(({ target }) => vlm.layout({ prompt, image: vlm.anyPicture }, target).targetIds[0]!),
    );
    ids.delete(right.tokenIds[i]!);
    return [...ids].map((keyId) => ({ prompt, keyId, image: () => decodeImage(image) }));
  });
  return averageModuleContribution(vlm, inputs, { signal });
}

export const layersOf = (vlm: Vlm): number[] => Array.from({ length: vlm.decoder.layers }, (_, i) => i);

/** Mean contribution of the deeper half of the layers over that of the shallower half. */
export function deepOverShallow(values: readonly number[]): { deep: number; shallow: number } {
  const half = Math.floor(values.length / 2);
  return { shallow: meanOf(values.slice(0, half))!, deep: meanOf(values.slice(values.length - half))! };
}

export function risesClaim(model: string, { contribution: { attn, mlp } }: AverageContribution): Claim {
  const [a, m] = [deepOverShallow(attn), deepOverShallow(mlp)];
  const words = ({ deep, shallow }: { deep: number; shallow: number }): string =>
    `${deep.toFixed(3)} in the deeper half, ${shallow.toFixed(3)} in the shallower${shallow > 0 ? ` (${times(deep / shallow)})` : ''}`;
  return {
    claim: `${model}: outputs of deep layers contribute more to the key token than those of shallow layers`,
    holds: a.deep > a.shallow && m.deep > m.shallow,
    measured: `attention ${words(a)}; MLP ${words(m)}`,
  };
}

/** How large contributions are: the largest of a figure's bars, and the mean size of all. */
export function scaleOf({ contribution: { attn, mlp } }: AverageContribution): { largest: number; mean: number } {
  const sizes = [...attn, ...mlp].map(Math.abs);
  return { largest: Math.max(...sizes), mean: meanOf(sizes)! };
}
