/** Checks of JSON text before it is read. */

import { ApiError } from '../errors.ts';

/** @throws ApiError 400 when lists and objects are nested deeper than allowed; strings are jumped over, so a picture costs nothing */
export function checkDepth(text: string, limit: number): void {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      i = endOfString(text, i);
      if (i < 0) return;
    } else if (c === 0x7b || c === 0x5b) {
      depth++;
      if (depth > limit)
        throw new ApiError(
          400,
          'json_too_deep',
          `lists and objects of the body are nested deeper than ${limit}, which is not allowed`,
        );
    } else if (c === 0x7d || c === 0x5d) depth--;
  }
}

/** The quotation mark that ends a string; −1 where none does. */
function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at >= 0; at = text.indexOf('"', at + 1)) {
    let slashes = 0;
    while (text[at - 1 - slashes] === '\\') slashes++;
    if (slashes % 2 === 0) return at;
  }
  return -1;
}
