/**
 * Settings of image processors: preprocessor_config.json, or `image_processor` of processor_config.json in folders that transformers 5 wrote. A
 * setting that is null is not set.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { flag, parseConfig, positive, withoutNulls } from '../../files/config.ts';
import { type Json, readJson } from '../../files/json.ts';

/** Pixels on one side that a processor may ask for: above the largest pictures of published models. */
export const edge = z
  .int('expected a whole number of pixels')
  .positive('expected a number above 0')
  .max(2048, 'expected at most 2048 pixels');

/**
 * Who resizes: Pillow up to 12, Pillow 13, which takes the passes in another order for some sizes, or torchvision, whose weights have fewer bits. The
 * pixels differ by one grey level here and there.
 */
export type Resizer = 'pillow' | 'pillow-13' | 'torchvision';

const length = z.union(
  [edge.transform((n) => ({ height: n, width: n })), z.looseObject({ height: edge, width: edge })],
  'expected a size: a number, or {height, width}, of at most 2048 pixels',
);
export const rgb = (number: z.ZodNumber) =>
  z
    .array(number)
    .length(3, 'expected three numbers, one per colour')
    .transform((list) => list as [number, number, number]);

const halves: [number, number, number] = [0.5, 0.5, 0.5];

/** Processors of CLIP, LLaVA, BLIP and SigLIP. */
export const preprocessorConfig = z
  .looseObject({
    image_processor_type: z
      .string()
      .regex(
        /^(CLIP|Llava|Blip|Siglip)(ImageProcessor(Fast|Pil)?|FeatureExtractor)$/,
        'only CLIPImageProcessor, LlavaImageProcessor, BlipImageProcessor and SiglipImageProcessor, and their Fast and Pil forms, are supported',
      )
      .nullish(),
    do_resize: flag(true),
    /** LLaVA's: the picture is padded to a square with the mean colour */
    do_pad: flag(false),
    /** one number means the shortest edge for CLIP and LLaVA, a square for BLIP; transformers keeps it under `size` too */
    size: z
      .union(
        [
          edge,
          z.looseObject({ shortest_edge: edge, longest_edge: z.undefined('is not supported beside shortest_edge').optional() }),
          z.looseObject({ height: edge, width: edge }),
        ],
        'expected a size: {shortest_edge}, {height, width} or a number, of at most 2048 pixels',
      )
      .nullish(),
    default_to_square: z.boolean('expected true or false').nullish(),
    /** PIL's codes */
    resample: z.union([z.literal(1), z.literal(2), z.literal(3)], 'expected 1 (Lanczos), 2 (bilinear) or 3 (bicubic)').default(3),
    do_center_crop: z.boolean('expected true or false').nullish(),
    crop_size: length.nullish(),
    do_rescale: flag(true),
    rescale_factor: positive.default(1 / 255),
    do_normalize: flag(true),
    image_mean: rgb(z.number()).optional(),
    image_std: rgb(positive).optional(),
  })
  .transform(({ image_mean, image_std, ...config }) => {
    const siglip = config.image_processor_type?.startsWith('Siglip');
    return {
      ...config,
      image_mean: image_mean ?? (siglip ? halves : [0.48145466, 0.4578275, 0.40821073]),
      image_std: image_std ?? (siglip ? halves : [0.26862954, 0.26130258, 0.27577711]),
    };
  });
export type PreprocessorConfig = z.output<typeof preprocessorConfig>;

export interface ImageSettings {
  /** the file and the field that they stand in, for messages */
  readonly name: string;
  readonly settings: Json;
  /** of the transformers that wrote the folder, as far as processors differ */
  readonly version: 4 | 5;
  /** limits that take the place of the settings' */
  readonly limits?: PixelLimits | undefined;
}

/** How many pixels a picture may have for the image encoder, where its processor scales by such limits; tiles together, without the whole picture beside them. */
export interface PixelLimits {
  readonly minPixels?: number | undefined;
  readonly maxPixels?: number | undefined;
}

/**
 * Limits that were given, of a processor that takes them.
 * @param least pixels of the smallest picture that it makes @param lower whether it has a lower limit
 * @throws Error when they cannot be held
 */
export function limitsOf({ name, limits = {} }: ImageSettings, least: number, lower: boolean): PixelLimits {
  const { minPixels: min, maxPixels: max } = limits;
  if (min !== undefined && !lower)
    throw new Error(`${name}: this processor has no lower limit of pixels; leave --min-pixels out`);
  if (max !== undefined && max < least)
    throw new Error(
      `${name}: --max-pixels is ${max}, but the smallest picture that the model reads has ${least} pixels; give at least ${least}`,
    );
  if (min !== undefined && max !== undefined && min > max)
    throw new Error(`--min-pixels is ${min} and --max-pixels is ${max}; give a lower --min-pixels, or a higher --max-pixels`);
  return limits;
}

/** Who resizes: the processor's name says it, or else the version, which changed it. */
export function resizerOf(processor: string, version: 4 | 5): Resizer {
  if (processor.endsWith('Fast')) return 'torchvision';
  return processor.endsWith('Pil') || version === 4 ? 'pillow' : 'torchvision';
}

/**
 * The settings of a folder's image processor. As in transformers, those inside processor_config.json come first.
 * @param limits that take the place of the settings'
 */
export function readImageSettings(dir: string, limits?: PixelLimits): ImageSettings {
  const [nested, path, config] = ['processor_config.json', 'preprocessor_config.json', 'config.json'].map((name) =>
    join(dir, name),
  ) as [string, string, string];
  if (existsSync(nested)) {
    const { image_processor: settings } = parseConfig(nested, processorConfig, readJson(nested));
    if (settings != null) return { name: `${nested} (image_processor)`, settings: withoutNulls(settings), version: 5, limits };
  }
  if (existsSync(path)) {
    const { transformers_version: version } = existsSync(config) ? parseConfig(config, versionConfig, readJson(config)) : {};
    const major = Number.parseInt(version ?? '4', 10);
    return { name: path, settings: withoutNulls(readJson(path)), version: major >= 5 ? 5 : 4, limits };
  }
  throw new Error(
    `${dir} says nothing about pictures: it has neither preprocessor_config.json nor a processor_config.json with image_processor; copy that file from the place where the model was published`,
  );
}

const versionConfig = z.looseObject({ transformers_version: z.string().nullish() });
const processorConfig = z.looseObject({
  image_processor: z.record(z.string(), z.json(), 'expected the settings of an image processor').nullish(),
});
