/** The figures' font (Inter, kept beside this file as a subset) and how wide text in it is, the same on every machine. */

export const fontFamily = 'Inter, Helvetica, Arial, sans-serif';

// Advances of the characters 32 to 126 in hundredths of the font size, read from the font.
const advances =
  '28 29 47 63 64 98 64 30 36 36 50 66 29 46 29 36 63 41 61 62 65 59 62 57 62 62 29 30 66 66 66 51 97 69 65 73 72 60 59 75 74 27 57 67 57 90 75 76 64 76 64 64 65 74 69 99 68 68 63 36 36 36 47 46 32 56 61 57 61 58 37 61 59 24 24 55 24 88 59 60 61 61 38 53 33 59 56 82 55 56 55 43 33 43 66'
    .split(' ')
    .map(Number);

export function textWidth(text: string, size: number, bold = false): number {
  let hundredths = 0;
  for (const character of text) hundredths += advances[(character.codePointAt(0) ?? 0) - 32] ?? 62;
  return (hundredths * size * (bold ? 1.025 : 1)) / 100;
}

/** Breaks text into lines no wider than `width`; what does not fit into `maxLines` ends in an ellipsis. */
export function wrap(
  text: string,
  width: number,
  size: number,
  { maxLines = Number.POSITIVE_INFINITY, bold = false } = {},
): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/).filter(Boolean)) {
    for (const piece of breakWord(word, width, size, bold)) {
      const longer = line === '' ? piece : `${line} ${piece}`;
      if (line === '' || textWidth(longer, size, bold) <= width) line = longer;
      else {
        lines.push(line);
        line = piece;
      }
    }
  }
  if (line !== '') lines.push(line);
  if (lines.length <= maxLines) return lines;
  const kept = lines.slice(0, maxLines);
  let last = kept.at(-1) ?? '';
  while (last !== '' && textWidth(`${last}…`, size, bold) > width) last = last.slice(0, -1);
  kept[maxLines - 1] = `${last.trimEnd()}…`;
  return kept;
}

function breakWord(word: string, width: number, size: number, bold: boolean): string[] {
  if (textWidth(word, size, bold) <= width) return [word];
  const pieces: string[] = [];
  let piece = '';
  for (const character of word) {
    if (piece !== '' && textWidth(piece + character, size, bold) > width) {
      pieces.push(piece);
      piece = '';
    }
    piece += character;
  }
  return [...pieces, piece];
}

/** A token as a reader knows it: without the word-start mark of SentencePiece or byte-level tokenizers, spaces visible. */
export function tokenLabel(token: string): string {
  const bare = token.replace(/^[▁Ġ]/, '').replace(/[▁Ġ]/g, ' ');
  return bare.trim() === '' ? JSON.stringify(token) : bare;
}
