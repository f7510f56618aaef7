/** A family of models: how its folders are read, and what they become. */

import { join } from 'node:path';
import { blockName } from '../files/blocks.ts';
import { parseConfig } from '../files/config.ts';
import type { Checkpoint } from '../files/folder.ts';
import type { Tensor } from '../graph/dtype.ts';
import { type PixelLimits, preprocessorConfig, readImageSettings } from '../input/image/config.ts';
import { type ImageProcessor, imageProcessor } from '../input/image/processor.ts';
import type { PreparedPicture, RgbImage } from '../input/segments.ts';
import { requireToken, type Tokenizer } from '../input/text/tokenizer.ts';
import type { Architecture } from './architecture.ts';
import type { Layout } from './configs/layout.ts';
import type { RuleOptions } from './token-rules.ts';

/** A described folder. */
export interface Folder<C> {
  readonly dir: string;
  readonly config: C;
  /** weights by the names that the architecture reads */
  readonly checkpoint: Checkpoint;
  /** whether matrices are to be rounded to whole numbers */
  readonly rounded?: boolean | undefined;
  /** of pictures, where the family's processor has such limits */
  readonly limits?: PixelLimits | undefined;
}

/** What a folder becomes. */
export interface Opened {
  readonly architecture: Architecture;
  readonly checkpoint: Checkpoint;
  /** weights that are made from stored ones */
  readonly derived?: ReadonlyMap<string, () => Tensor>;
  readonly tokenizer: Tokenizer;
  /** @param together pictures of the prompt, this one included */
  readonly processor: (image: RgbImage, together?: number) => PreparedPicture;
  /** what ends an answer where generation_config.json does not say it */
  readonly eosIds: readonly number[];
  readonly prompt: RuleOptions['prompt'];
}

/** A family: one file, and one line in families.ts. */
export interface Family<C> {
  readonly layout: Layout<C>;
  /** @throws Error that says what of the folder does not fit, and in which file */
  open(folder: Folder<C>): Opened;
}

/**
 * The processor of a folder whose pictures all have one size, which must be the one that the model takes.
 * @param otherwise the family's, where the folder does not name one
 */
export function fixedProcessor(
  dir: string,
  [height, width]: readonly [number, number],
  otherwise: 'CLIPImageProcessor' | 'BlipImageProcessor',
): ImageProcessor {
  const { name, settings, version } = readImageSettings(dir);
  const config = parseConfig(name, preprocessorConfig, settings);
  const processor = imageProcessor({ ...config, image_processor_type: config.image_processor_type ?? otherwise }, name, version);
  if (processor.height !== height || processor.width !== width) {
    throw new Error(
      `${name} makes pictures of ${processor.height} by ${processor.width}, config.json asks for ${height} by ${width}`,
    );
  }
  return processor;
}

/**
 * The head of a folder: the embedding, where it has none of its own and a part of its configuration says that they are one. Where matrices are
 * rounded, such a head is a weight of its own, since embeddings are not.
 * @returns `tie_word_embeddings` of the decoder, and the weights that it reads
 */
export function headOf(
  { checkpoint, rounded = false }: Pick<Folder<unknown>, 'checkpoint' | 'rounded'>,
  { head, embedding }: { head: string; embedding: string },
  ...parts: readonly { readonly tie_word_embeddings: boolean }[]
): { tie_word_embeddings: boolean; checkpoint: Checkpoint } {
  const hasHead = checkpoint.has(head) || checkpoint.has(blockName(head, 'data'));
  const tied = !hasHead && parts.some(({ tie_word_embeddings }) => tie_word_embeddings);
  return tied && rounded && checkpoint.has(embedding)
    ? { tie_word_embeddings: false, checkpoint: checkpoint.withSecondName(embedding, head) }
    : { tie_word_embeddings: tied, checkpoint };
}

/** The id of the token that stands for a picture, which configuration and tokenizer must agree about. @throws Error when they do not */
export function imageToken(dir: string, tokenizer: Tokenizer, text: string, field: string, id: number): number {
  const own = requireToken(tokenizer, text);
  if (own !== id)
    throw new Error(
      `${join(dir, 'config.json')}: ${field} is ${id}, but ${text} is token ${own} of ${tokenizer.dir}; use the tokenizer files that were published with this model`,
    );
  return id;
}
