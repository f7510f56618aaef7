/**
 * Reading JSON that others wrote: errors name the file and the place, and text that is too long or too deeply nested is refused, since what
 * walks a value afterwards (schemas, figures, printing) calls itself at every level.
 */
import { MAX_DEPTH, strictJson } from './strict-json.ts';
import { MEBIBYTE, readText } from './text.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A long vocabulary is a tenth of this. */
export const MAX_BYTES = 256 * MEBIBYTE;

/**
 * The value of a JSON text.
 * @param what names the text in errors: its file, or what it is a part of
 */
export function parseJson(text: string, what: string): Json {
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch (error) {
    throw new Error(`${what} is not valid JSON: ${placeOf(text) ?? (error as Error).message}`, { cause: error });
  }
  if (isDeeper(value, MAX_DEPTH))
    throw new Error(`${what} is not read: its lists and objects are nested deeper than ${MAX_DEPTH}`);
  return value;
}

/** What is wrong, and where: JSON.parse tells neither line nor column. */
function placeOf(text: string): string | undefined {
  try {
    strictJson(text);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Whether lists and objects are nested deeper. */
export function isDeeper(value: Json, most: number): boolean {
  let level: Json[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    const inner: Json[] = [];
    for (const one of level) {
      if (typeof one !== 'object' || one === null) continue;
      if (depth === most) return true;
      for (const item of Array.isArray(one) ? one : Object.values(one))
        if (typeof item === 'object' && item !== null) inner.push(item);
    }
    level = inner;
  }
  return false;
}

/** The content of a JSON file. */
export const readJson = (path: string, most = MAX_BYTES): Json => parseJson(readText(path, most), path);
