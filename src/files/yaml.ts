/**
 * Reading YAML files, which here are configurations: short, and nested no deeper than JSON may be. The library composes a document by
 * functions that call themselves at every level and ends the process where the stack ends, so depth is checked while it still reads tokens.
 */
import { createRequire } from 'node:module';
import type * as yaml from 'yaml';
import type { CST } from 'yaml';
import type { z } from 'zod';
import { isDeeper, type Json } from './json.ts';
import { parseConfig } from './schema.ts';
import { MAX_DEPTH } from './strict-json.ts';
import { readText } from './text.ts';

/** Many times what such files have. */
const MAX_BYTES = 64 * 1024;

/** Loaded at the first file: it is 84 modules, which few commands need. */
const library = (): typeof yaml => createRequire(import.meta.url)('yaml') as typeof yaml;

/** The value of a YAML text of one document; undefined when it is empty. */
export function parseYaml(text: string, what: string): Json | undefined {
  const fail = (problem: string, cause?: unknown): never => {
    throw new Error(`${what} is not valid YAML: ${problem}`, { cause });
  };
  const deep = (): never => fail(`its lists and objects are nested deeper than ${MAX_DEPTH}, which is not read`);
  const { Composer } = library();
  const documents = [...new Composer({ stringKeys: true }).compose(tokens(text, deep), false, text.length)];
  if (documents.length > 1) fail('it holds more than one document');
  const [document] = documents;
  if (document === undefined) return undefined;
  const [error] = document.errors;
  if (error !== undefined) {
    const before = text.slice(0, error.pos[0]);
    fail(`line ${before.split('\n').length}, column ${before.length - before.lastIndexOf('\n')}: ${error.message}`, error);
  }
  let value: Json;
  try {
    value = document.toJS() as Json;
  } catch (cause) {
    return fail((cause as Error).message, cause);
  }
  // An anchor may be inside what it names.
  return isDeeper(value, MAX_DEPTH) ? deep() : value;
}

function* tokens(text: string, deep: () => never): Generator<CST.Token> {
  const { Lexer, Parser } = library();
  const parser = new Parser();
  for (const lexeme of new Lexer().lex(text)) {
    yield* parser.next(lexeme);
    if (parser.stack.length > MAX_DEPTH) deep();
  }
  yield* parser.end();
}

/** Reads and checks one YAML file; an empty one is an object without fields. */
export function readYaml<S extends z.ZodType>(path: string, schema: S): z.output<S> {
  return parseConfig(path, schema, parseYaml(readText(path, MAX_BYTES), path) ?? {});
}
