/** Bodies of JSON, checked as text before they are read as values. */

import { ApiError } from '../errors.ts';
import type { Limits } from '../options.ts';

/** @throws ApiError 400 when the text is no JSON, is nested deeper or has more values than allowed */
export function parseJson(text: string, limits: Pick<Limits, 'jsonDepth' | 'jsonValues'>): unknown {
  checkShape(text, limits);
  try {
    return JSON.parse(text, checkLength);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, 'invalid_json', 'the body is not valid JSON');
  }
}

/** The schemas compare any `length` or `size` with a number. That fails on an object that cannot become a number. */
function checkLength(key: string, value: unknown): unknown {
  if ((key === 'length' || key === 'size') && typeof value === 'object' && value !== null)
    throw new ApiError(400, 'invalid_value', `no field ${JSON.stringify(key)} holds a list or an object`, { param: key });
  return value;
}

/** Skips strings, so a picture costs nothing. */
export function checkShape(text: string, { jsonDepth, jsonValues }: Pick<Limits, 'jsonDepth' | 'jsonValues'>): void {
  let depth = 0;
  let values = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      i = endOfString(text, i);
      if (i < 0) return;
    } else if (c === 0x7b || c === 0x5b) {
      depth++;
      if (depth > jsonDepth)
        throw new ApiError(
          400,
          'json_too_deep',
          `lists and objects of the body are nested deeper than ${jsonDepth}, which is not allowed`,
        );
    } else if (c === 0x7d || c === 0x5d) depth--;
    else if (c === 0x2c && ++values >= jsonValues)
      throw new ApiError(400, 'json_too_large', `the body has more than the ${jsonValues} values that are allowed`);
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
