/** Visual tokens of many pictures at once, for trainings: an evaluation keeps those that it has seen (`Vlm.visual`), a training sees most of them once. */

import { f32, type Tensor } from '../../graph/dtype.ts';
import { decodeImage } from '../../input/image/decode.ts';
import { stack, type Vlm } from '../../models/vlm.ts';

/** Visual tokens [v, d] by path. */
export type VisualTokens = ReadonlyMap<string, Tensor<'float32'>>;

/** @param paths of picture files; null where a query has none */
export async function picturesOf(vlm: Vlm, paths: readonly (string | null)[]): Promise<VisualTokens> {
  const names = [...new Set(paths)].filter((path) => path !== null);
  const out = new Map<string, Tensor<'float32'>>();
  const { visualTokens, decoder } = vlm.architecture;
  const size = visualTokens * decoder.hidden;
  const most = Math.min(32, vlm.batchLimit);
  for (let at = 0; at < names.length; at += most) {
    const some = names.slice(at, at + most);
    const images = await Promise.all(some.map((path) => decodeImage(path)));
    const { data } = await vlm.visualBatch(stack(images.map((image) => vlm.processor(image))));
    some.forEach((path, i) => {
      out.set(path, f32(data.slice(i * size, (i + 1) * size), [visualTokens, decoder.hidden]));
    });
  }
  return out;
}
