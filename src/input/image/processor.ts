/**
 * Pictures to `pixel_values [3,H,W]`, as transformers' processors of CLIP, LLaVA, BLIP and SigLIP do: pad, resize, centre crop, rescale, normalise. The
 * slow ones (and all of transformers 4.43) use Pillow and NumPy, the fast ones torchvision. MiniGPT-4's processor is BLIP's with one size.
 */
import { parseConfig } from '../../files/config.ts';
import { f32, type Tensor } from '../../graph/dtype.ts';
import type { Region, RgbImage } from '../segments.ts';
import { type PreprocessorConfig, preprocessorConfig, type Resizer, resizerOf } from './config.ts';
import { onWhite } from './decode.ts';
import { filters, resize } from './resample.ts';

/** PIL would take hours for a picture one pixel high stretched to thousands. */
const MAX_RATIO = 100;
/** of a resized picture, before it is cropped */
const MAX_PIXELS = 2 ** 24;

export interface ImageProcessor {
  /** size of the result */
  readonly height: number;
  readonly width: number;
  process(image: RgbImage): Tensor<'float32'>;
  /** the part of the picture that the result shows, in the picture's pixels */
  region(image: RgbImage): Region;
}

/**
 * @param name where the configuration comes from, for messages
 * @param version of the transformers whose processor it is: 5 puts transparent pictures on white, and resizes by torchvision where the
 * processor's name does not say who does
 */
export function imageProcessor(
  config: PreprocessorConfig,
  name = 'preprocessor_config.json',
  version: 4 | 5 = 4,
): ImageProcessor {
  const { do_resize, resample, do_pad, image_mean } = config;
  const kind = config.image_processor_type ?? 'CLIPImageProcessor';
  const isBlip = kind.startsWith('Blip');
  const isSiglip = kind.startsWith('Siglip');
  const resizer = resizerOf(kind, version);
  const size = config.size ?? (isBlip ? 384 : 224);
  // a single number means the shortest edge to CLIP, a square to BLIP
  const isSquare = config.default_to_square ?? (isBlip || isSiglip);
  const target = typeof size !== 'number' ? size : isSquare ? { height: size, width: size } : { shortest_edge: size };
  // BLIP's processor does not know cropping before transformers 5 and in its slow form
  const crops =
    isBlip || isSiglip ? kind !== 'BlipImageProcessor' && config.do_center_crop === true : (config.do_center_crop ?? true);
  const crop = crops ? (config.crop_size ?? { height: 224, width: 224 }) : undefined;
  const exact = 'height' in target ? (target as { height: number; width: number }) : undefined;
  const output = crop ?? (do_resize ? exact : undefined);
  if (!output)
    throw new Error(
      `${name}: pictures would come out in different sizes; set size to {height, width}, or do_center_crop with crop_size`,
    );
  const table = valuesOf(config, resizer);
  const pads = do_pad === true && kind.startsWith('Llava');

  const resized = (image: RgbImage): { width: number; height: number } =>
    do_resize ? (exact ?? shortestEdge(image, (target as { shortest_edge: number }).shortest_edge)) : image;
  return {
    height: output.height,
    width: output.width,
    region(image) {
      const side = Math.max(image.width, image.height);
      const padded = pads ? { width: side, height: side } : { width: image.width, height: image.height };
      const { width, height } = resized({ ...image, ...padded });
      const [across, down] = [padded.width / width, padded.height / height];
      const left = crop === undefined ? 0 : cropStart(width, crop.width, resizer);
      const top = crop === undefined ? 0 : cropStart(height, crop.height, resizer);
      return {
        left: left * across - Math.floor((padded.width - image.width) / 2),
        top: top * down - Math.floor((padded.height - image.height) / 2),
        width: output.width * across,
        height: output.height * down,
      };
    },
    process(image) {
      let picture = version === 5 ? onWhite(image) : image;
      if (pads) picture = padToSquare(picture, image_mean);
      if (do_resize) {
        const { width, height } = resized(picture);
        picture = resize(picture, width, height, filters[resample], resizer);
      }
      if (crop) picture = centerCrop(picture, crop.width, crop.height, resizer);
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

/** The value of each byte in each channel, rounded to float32 after every step as NumPy and torch do. */
export function valuesOf(
  config: Pick<PreprocessorConfig, 'do_rescale' | 'rescale_factor' | 'do_normalize' | 'image_mean' | 'image_std'>,
  resizer: Resizer,
): Float32Array[] {
  const { do_rescale, rescale_factor, do_normalize } = config;
  const f = Math.fround;
  return [0, 1, 2].map((channel) => {
    const [mean, std] = [f(config.image_mean[channel]!), f(config.image_std[channel]!)];
    // torchvision's processors rescale mean and deviation instead of the picture.
    const fused = resizer === 'torchvision' && do_rescale && do_normalize;
    const by = f(1 / rescale_factor);
    const scale = resizer === 'torchvision' ? f(rescale_factor) : rescale_factor;
    return Float32Array.from({ length: 256 }, (_, value) => {
      if (fused) return f(value - f(mean * by)) / f(std * by);
      const scaled = f(do_rescale ? value * scale : value);
      return do_normalize ? f(scaled - mean) / std : scaled;
    });
  });
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
  if (edge * longEdge > MAX_PIXELS)
    throw new Error(
      `a picture of ${width} by ${height} pixels would become one of ${edge * longEdge} pixels, more than the ${MAX_PIXELS} allowed; cut it, or use a smaller shortest_edge`,
    );
  return width <= height ? { width: edge, height: longEdge } : { width: longEdge, height: edge };
}

/** transformers' center_crop: the middle of the picture, black where it is too small. */
function centerCrop(image: RgbImage, width: number, height: number, resizer: Resizer): RgbImage {
  if (image.width === width && image.height === height) return image;
  const [left, top] = [cropStart(image.width, width, resizer), cropStart(image.height, height, resizer)];
  return paste(image, { width, height, data: new Uint8Array(width * height * 3) }, -left, -top);
}

/** Where the crop starts; below zero where the picture is smaller. Half a pixel goes up and left in NumPy, to where the picture is smaller in torchvision. */
function cropStart(from: number, to: number, resizer: Resizer): number {
  const half = (from - to) / 2;
  return resizer === 'pillow' ? Math.floor(half) : Math.trunc(half);
}

/** The picture in the middle of a square of a colour between 0 and 1. */
function padToSquare(image: RgbImage, colour: readonly number[]): RgbImage {
  const { width, height } = image;
  const side = Math.max(width, height);
  if (width === height) return image;
  const bytes = colour.map((value) => Math.trunc(value * 255));
  const data = Uint8Array.from({ length: side * side * 3 }, (_, i) => bytes[i % 3]!);
  return paste(image, { width: side, height: side, data }, (side - width) >> 1, (side - height) >> 1);
}

/** Copies a picture into another, whose data it changes; what stands over is cut. Left and top may be below zero. */
export function paste(image: RgbImage, into: RgbImage, left: number, top: number): RgbImage {
  const first = Math.max(0, -left);
  const last = Math.min(image.width, into.width - left);
  for (let y = Math.max(0, -top); y < image.height && y + top < into.height; y++) {
    const row = y * image.width;
    into.data.set(image.data.subarray((row + first) * 3, (row + last) * 3), ((y + top) * into.width + left + first) * 3);
  }
  return into;
}
