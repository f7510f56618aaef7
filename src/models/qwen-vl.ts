/** What Qwen2.5-VL and Qwen3-VL share: how pictures stand in texts, positions with three axes, and their processor. */

import type { Tensor } from '../graph/dtype.ts';
import { gridPositions } from '../input/grid-positions.ts';
import { readImageSettings } from '../input/image/config.ts';
import { qwenProcessor } from '../input/image/modern.ts';
import { finestView } from '../input/image/views.ts';
import { encodeWithPictures, oneRun } from '../input/picture-text.ts';
import type { Picture } from '../input/segments.ts';
import { requireToken, type Tokenizer } from '../input/text/tokenizer.ts';
import type { Architecture, PromptPart } from './architecture.ts';
import { type Folder, imageToken, type Opened } from './family.ts';
import { prepareViews } from './pictures.ts';
import type { QwenVisionConfig } from './qwen-vit.ts';

const tokens = { begin: '<|vision_start|>', image: '<|image_pad|>', end: '<|vision_end|>' } as const;

/** A picture of which only the place matters is one row. */
const gridOf = ({ count, views }: Picture): readonly [number, number] => (views ? finestView(views).grid : [1, count]);

/** The text of a picture between its marks, where the texts beside it do not have them: chat templates do. */
function pictureText(parts: readonly PromptPart[], i: number, count: number) {
  const [before, after] = [parts[i - 1], parts[i + 1]];
  const begun = before !== undefined && 'text' in before && before.text.endsWith(tokens.begin);
  const ended = after !== undefined && 'text' in after && after.text.startsWith(tokens.end);
  return oneRun(tokens.image, count, begun ? '' : tokens.begin, ended ? '' : tokens.end);
}

/** @param imageId of the token that stands for a visual token */
export const qwenText = (
  imageId: number,
): Pick<Architecture, 'placeholder' | 'afterPicture' | 'layout' | 'positions' | 'usualTokens'> => ({
  // of a picture of 640 x 480
  usualTokens: 300,
  placeholder: () => tokens.image,
  afterPicture: '',
  layout: (parts, { encode }) =>
    encodeWithPictures(
      parts.map((part, i) => ('text' in part ? part : { picture: pictureText(parts, i, part.picture.count) })),
      { text: tokens.image, id: imageId },
      encode,
    ),
  positions: ({ ids, pictures, spans }) =>
    gridPositions(
      ids.length,
      pictures.map((picture, i) => ({ start: spans[i]![0]![0], grid: gridOf(picture) })),
    ),
});

/**
 * The parts of a folder that are read in the same way.
 * @param places what the image encoder reads of a picture beside its pixels, by rows and columns of visual tokens
 * @throws Error when tokenizer, processor and configuration are not of one model
 */
export function openQwen(
  { dir, limits }: Pick<Folder<unknown>, 'dir' | 'limits'>,
  tokenizer: Tokenizer,
  config: { image_token_id: number; vision_config: QwenVisionConfig },
  places: (grid: readonly [number, number]) => Record<string, Tensor>,
): Pick<Opened, 'processor' | 'prompt'> {
  const { image_token_id: id, vision_config: vision } = config;
  const imageId = imageToken(dir, tokenizer, tokens.image, 'image_token_id', id);
  for (const text of [tokens.begin, tokens.end]) requireToken(tokenizer, text);
  const processor = qwenProcessor(readImageSettings(dir, limits), {
    patch_size: vision.patch_size,
    merge_size: vision.spatial_merge_size,
    temporal_patch_size: vision.temporal_patch_size,
  });
  return {
    prompt: { imageId },
    processor: (image) => {
      const read = processor.process(image);
      return { ...prepareViews(read), pixels: () => ({ ...read.pixels(), ...places(read.grid) }) };
    },
  };
}
