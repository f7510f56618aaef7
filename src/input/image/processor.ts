/**
 * Pictures to `pixel_values [3,H,W]`, as transformers' CLIPImageProcessor and BlipImageProcessor do: resize, centre
 * crop, rescale, normalise. MiniGPT-4's processor is BLIP's with one size.
 */
import { type PreprocessorConfig, parseConfig, preprocessorConfig } from '../../files/config.ts';
import { f32, type Tensor } from '../../graph/dtype.ts';
import type { RgbImage } from './decode.ts';
import { filters, resize } from './resample.ts';

/** PIL would take hours for a picture one pixel high stretched to thousands. */
const MAX_RATIO = 100;

export interface ImageProcessor {
  /** size of the result */
  readonly height: number;
  readonly width: number;
  process(image: RgbImage): Tensor<'float32'>;
}

/** `name` is where the configuration comes from, for messages. */
export function imageProcessor(config: PreprocessorConfig, name = 'preprocessor_config.json'): ImageProcessor {
  const { do_resize, resample, do_rescale, rescale_factor, do_normalize } = config;
  const isClip = /^CLIP/.test(config.image_processor_type ?? 'CLIP');
  const size = config.size ?? (isClip ? 224 : 384);
  // a single number means the shortest edge to CLIP, a square to BLIP
  const target = typeof size !== 'number' ? size : isClip ? { shortest_edge: size } : { height: size, width: size };
  // BLIP's processor does not know cropping
  const crop = isClip && (config.do_center_crop ?? true) ? (config.crop_size ?? { height: 224, width: 224 }) : undefined;
  const exact = 'height' in target ? (target as { height: number; width: number }) : undefined;
  const output = crop ?? (do_resize ? exact : undefined);
  if (!output)
    throw new Error(
      `${name}: pictures would come out in different sizes; set size to {height, width}, or do_center_crop with crop_size`,
    );

  // one value per byte and channel, rounded to float32 after every step as NumPy does
  const table = [0, 1, 2].map((channel) =>
    Float32Array.from({ length: 256 }, (_, value) => {
      const scaled = Math.fround(do_rescale ? value * rescale_factor : value);
      if (!do_normalize) return scaled;
      return Math.fround(
        Math.fround(scaled - Math.fround(config.image_mean[channel]!)) / Math.fround(config.image_std[channel]!),
      );
    }),
  );

  return {
    height: output.height,
    width: output.width,
    process(image) {
      let picture = image;
      if (do_resize) {
        const { width, height } = exact ?? shortestEdge(image, (target as { shortest_edge: number }).shortest_edge);
        picture = resize(image, width, height, filters[resample]);
      }
      if (crop) picture = centerCrop(picture, crop.width, crop.height);
      const plane = output.height * output.width;
      const data = new Float32Array(3 * plane);
      for (let c = 0; c < 3; c++) {
        const values = table[c]!;
        for (let i = 0; i < plane; i++) data[c * plane + i] = values[picture.data[3 * i + c]!]!;
      }
      return f32(data, [3, output.height, output.width]);
    },
  };
}

/** MiniGPT-4's evaluation processor: a square, bicubic, CLIP's mean and deviation. */
export function squareProcessor(edge: number): ImageProcessor {
  return imageProcessor(
    parseConfig('image processor', preprocessorConfig, { image_processor_type: 'BlipImageProcessor', size: edge }),
  );
}

/** transformers' get_resize_output_image_size: the shorter side becomes `edge`, the longer one is cut to a whole number. */
function shortestEdge({ width, height }: RgbImage, edge: number): { width: number; height: number } {
  const [short, long] = width <= height ? [width, height] : [height, width];
  if (long > short * MAX_RATIO)
    throw new Error(`a picture of ${width} by ${height} pixels is too narrow; at most ${MAX_RATIO} to 1 is allowed`);
  const longEdge = Math.trunc((edge * long) / short);
  return width <= height ? { width: edge, height: longEdge } : { width: longEdge, height: edge };
}

/** transformers' center_crop: the middle of the picture, black where it is too small. */
function centerCrop(image: RgbImage, width: number, height: number): RgbImage {
  if (image.width === width && image.height === height) return image;
  const left = cropStart(image.width, width);
  const top = cropStart(image.height, height);
  const data = new Uint8Array(width * height * 3);
  for (let y = Math.max(0, -top); y < height && y + top < image.height; y++) {
    const first = Math.max(0, -left);
    const last = Math.min(width, image.width - left);
    const from = ((y + top) * image.width + first + left) * 3;
    data.set(image.data.subarray(from, from + (last - first) * 3), (y * width + first) * 3);
  }
  return { width, height, data };
}

/** Where the crop starts in the picture; below zero when the picture is smaller. */
function cropStart(from: number, to: number): number {
  return Math.floor((from - to) / 2);
}
