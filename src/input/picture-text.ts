/**
 * What stands in a prompt's text for a picture, by the ways of the published processors (transformers 5.24, `processing_*.py`), and the
 * tokens of a text with pictures. One image token stands for a whole run of visual tokens, however long it is.
 */

/** The text of one picture, with an image token for each run of its visual tokens, and the lengths of the runs. */
export interface PictureText {
  readonly text: string;
  readonly runs: readonly number[];
}

/** A token as it is written in texts, and its id. */
export interface NamedId {
  readonly text: string;
  readonly id: number;
}

/** Visual tokens in one run, with something before and after: Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, InternVL, Gemma 3. */
export const oneRun = (image: string, count: number, before = '', after = ''): PictureText => ({
  text: before + image + after,
  runs: [count],
});

/** Gemma 3 (`processing_gemma3.py`): its line breaks merge with those of the text around. */
export const gemmaPicture = (tokens: { begin: string; image: string; end: string }, count: number): PictureText =>
  oneRun(tokens.image, count, `\n\n${tokens.begin}`, `${tokens.end}\n\n`);

/**
 * SmolVLM (`processing_smolvlm.py`): tiles row by row, each behind a mark of its place, then the whole picture. 0 rows and 0 columns: the whole
 * picture alone.
 * @param perTile visual tokens of a tile, and of the whole picture
 */
export function tiledPicture(
  tokens: { around: string; image: string; whole: string },
  [rows, columns]: readonly [number, number],
  perTile: number,
): PictureText {
  const { around, image, whole } = tokens;
  const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);
  const tiles = count(rows).map(
    (row) =>
      `${count(columns)
        .map((column) => `${around}<row_${row}_col_${column}>${image}`)
        .join('')}\n`,
  );
  const split = rows * columns > 0;
  return {
    text: `${tiles.join('')}${split ? '\n' : ''}${around}${whole}${image}${around}`,
    runs: new Array<number>(rows * columns + 1).fill(perTile),
  };
}

/**
 * Tokens of a prompt: ids, and runs of visual tokens of the prompt's pictures, counted from 0.
 * @param image stands for a run of visual tokens; `mark` is the word that stands for a picture in a prompt, where that is another one
 * @param begin the token that begins every text; it is not added where the text has it already
 * @throws Error when a text has the image token, or the tokenizer does not know it
 */
export function encodeWithPictures(
  parts: readonly ({ readonly text: string } | { readonly picture: PictureText })[],
  image: NamedId & { readonly mark?: string },
  encode: (text: string, options?: { special?: boolean }) => number[],
  begin?: string,
): (number | { readonly picture: number; readonly run: number })[] {
  for (const part of parts) {
    for (const word of [image.text, image.mark])
      if (word !== undefined && 'text' in part && part.text.includes(word))
        throw new Error(`the prompt has ${word} in its text, which stands for a picture; give the picture itself`);
  }
  const pictures = parts.flatMap((part) => ('picture' in part ? [part.picture] : []));
  const runs = pictures.flatMap((picture, i) => picture.runs.map((run) => ({ picture: i, run })));
  const text = parts.map((part) => ('text' in part ? part.text : part.picture.text)).join('');
  let next = 0;
  const tokens = encode(text, { special: begin === undefined || !text.startsWith(begin) }).map((id) =>
    id === image.id && next < runs.length ? runs[next++]! : id,
  );
  if (next < runs.length)
    throw new Error(
      `the tokenizer does not make token ${image.id} of ${image.text}; use the tokenizer files that were published with this model`,
    );
  return tokens;
}
