/** World pictures as pixel values: the CLIP processor on a picture that already has the model's size is a table look-up per channel. */

import { f32, type Tensor } from '../../src/graph/dtype.ts';

const clipMean = [0.48145466, 0.4578275, 0.40821073] as const;
const clipStd = [0.26862954, 0.26130258, 0.27577711] as const;

const tables = clipMean.map((mean, c) => Float32Array.from({ length: 256 }, (_, v) => (v / 255 - mean) / clipStd[c]!));

/** RGB pictures of one size -> [b, 3, size, size] */
export function pixelValues(images: readonly Uint8Array[], size: number): Tensor<'float32'> {
  const plane = size * size;
  const data = new Float32Array(images.length * 3 * plane);
  images.forEach((image, n) => {
    for (let c = 0; c < 3; c++) {
      const table = tables[c]!;
      const at = (n * 3 + c) * plane;
      for (let i = 0; i < plane; i++) data[at + i] = table[image[i * 3 + c]!]!;
    }
  });
  return f32(data, [images.length, 3, size, size]);
}
