/** What a model is asked: text and pictures in their order. */

import type { Tensor } from '../graph/dtype.ts';

/** An 8-bit RGB picture. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  /** rows of red, green, blue bytes */
  readonly data: Uint8Array;
  /** of each pixel, 0 where it is transparent; absent where all are opaque */
  readonly alpha?: Uint8Array;
}

/** A part of the original picture, in its pixels; it may reach beyond the picture where the processor pads. */
export interface Region {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** What the visual tokens of a picture stand for. */
export interface VisualGrid {
  /** rows and columns of the cells that heat maps are drawn on */
  readonly grid: readonly [number, number];
  /** where cell i, row by row, lies in the original picture */
  regionOf(cell: number): Region;
}

/** Visual tokens that fill a part of the picture in rows and columns: the whole picture, or its tiles put together. Plain data. */
export interface View {
  readonly of: 'whole' | 'tiles';
  /** the part of the original picture */
  readonly region: Region;
  /** rows and columns of cells over the region */
  readonly grid: readonly [number, number];
  /** the visual token of each cell, row by row */
  readonly tokens: readonly number[];
  /** rows and columns of tiles */
  readonly tiles?: readonly [number, number];
}

/** A picture as a model's processor leaves it: what the image encoder reads, and what its visual tokens will stand for. */
export interface PreparedPicture extends VisualGrid {
  /** inputs of the image encoder by name, without a batch axis; computed when called */
  pixels(): Readonly<Record<string, Tensor>>;
  /** visual tokens */
  readonly count: number;
  /** what its visual tokens show, in their order; absent: they are the cells of `grid`, or no part of the picture by themselves */
  readonly views?: readonly View[];
  /** height and width that the picture is scaled to, where they depend on it */
  readonly size?: readonly [number, number];
}

/** A picture in a model's input: how many visual tokens it has, and what they are. */
export interface Picture {
  /** equal for equal contents */
  readonly key: string;
  /** visual tokens */
  readonly count: number;
  /** visual tokens [count, width]; computed when first asked for */
  see(): Promise<Tensor<'float32'>>;
  /** what they show: see `PreparedPicture` */
  readonly views?: readonly View[] | undefined;
  /** absent where only the visual tokens are known */
  readonly prepared?: PreparedPicture;
}

/** A part of a prompt: text, or a picture. */
export type Segment = { readonly text: string } | { readonly picture: RgbImage | Picture };

/** A text, or text and pictures in their order. */
export type Prompt = string | readonly Segment[];

/** A text with at most one picture, whose place the model's family chooses; or text and pictures in their order. */
export interface Asked {
  readonly prompt: Prompt;
  /** with a text only */
  readonly image?: RgbImage | Picture | undefined;
}

/** A picture of which only the place matters, where tokens of a text are counted. @throws Error when it is looked at */
export const anyPicture: Picture = {
  key: '',
  count: 1,
  see: () => Promise.reject(new Error('this picture only holds a place in the prompt; it has no visual tokens')),
};

/** How many pictures a prompt has. */
export const pictureCount = ({ prompt, image }: Asked): number =>
  typeof prompt === 'string' ? Number(image !== undefined) : prompt.filter((segment) => 'picture' in segment).length;

/** The prompt's words alone. */
export const textOf = (prompt: Prompt): string =>
  typeof prompt === 'string' ? prompt : prompt.map((segment) => ('text' in segment ? segment.text : '')).join('');

/** The text that asks: of a prompt of segments the last one. */
export const questionOf = (prompt: Prompt): string => {
  if (typeof prompt === 'string') return prompt;
  const last = prompt.findLast((segment) => 'text' in segment);
  return last !== undefined && 'text' in last ? last.text : '';
};

/** A prompt with another question in the place of its own. */
export function changeQuestion(prompt: Prompt, change: (question: string) => string): Prompt {
  if (typeof prompt === 'string') return change(prompt);
  const at = prompt.findLastIndex((segment) => 'text' in segment);
  if (at < 0) return [...prompt, { text: change('') }];
  return prompt.map((segment, i) => (i === at && 'text' in segment ? { text: change(segment.text) } : segment));
}

/** The pictures of a prompt that are given as pixels, in their order. */
export const imagesOf = ({ prompt, image }: Asked): RgbImage[] =>
  (typeof prompt === 'string' ? [image] : prompt.map((segment) => ('picture' in segment ? segment.picture : undefined))).filter(
    (one): one is RgbImage => one !== undefined && 'data' in one,
  );

/** The same question about another picture, which takes the place of the first of a prompt of segments. */
export const changePicture = (asked: Asked, other: RgbImage): Asked => changePictures(asked, [other]);

/** The same question about other pictures, which take the places of its first ones. */
export function changePictures({ prompt, image }: Asked, others: readonly RgbImage[]): Asked {
  if (typeof prompt === 'string') return { prompt, image: image === undefined ? undefined : others[0] };
  let at = 0;
  return { prompt: prompt.map((segment) => ('picture' in segment && at < others.length ? { picture: others[at++]! } : segment)) };
}
