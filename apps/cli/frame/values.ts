/**
 * Kinds of values that a command takes: declared once, they give the help line, the check and the TypeScript type.
 * A check throws the end of the sentence "--layer 'x' ...": what is wrong and what to give instead.
 */
import { accessSync, constants, type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';

export interface Value<T> {
  readonly help: string;
  /** What stands for the value in the help, as `N` in `--steps N`; empty for a switch. */
  readonly placeholder: string;
  readonly required: boolean;
  readonly fallback: T | undefined;
  /** May be given several times; the value is then a list. */
  readonly repeatable: boolean;
  /** Of a value that is one of a few words: the words, for the help. */
  readonly choices?: readonly string[];
  parse(text: string): T;
}

export type Values = Readonly<Record<string, Value<unknown>>>;
export type ParsedValues<V extends Values> = { [K in keyof V]: V[K] extends Value<infer T> ? T : never };

interface Presence<T> {
  required?: boolean;
  default?: T;
  placeholder?: string;
}
/** `T` where the value is required or has a default, `T | undefined` otherwise. */
type Present<T, C> = C extends { required: true } | { default: T } ? T : T | undefined;

function value<T, C extends Presence<T>>(help: string, placeholder: string, config: C | undefined, parse: (text: string) => T) {
  return {
    help,
    placeholder: config?.placeholder ?? placeholder,
    required: config?.required ?? false,
    fallback: config?.default,
    repeatable: false,
    parse,
  } as Value<Present<T, C>>;
}

/** A switch: `--quick`. */
export function flag(help: string): Value<boolean> {
  return { help, placeholder: '', required: false, fallback: false, repeatable: false, parse: () => true };
}

export function text<const C extends Presence<string>>(help: string, config?: C): Value<Present<string, C>> {
  return value<string, C>(help, 'TEXT', config, (given) => {
    if (given.trim() === '') throw new Error('is empty; give some text');
    return given;
  });
}

export function choice<const W extends readonly string[], const C extends Presence<W[number]>>(
  help: string,
  words: W,
  config?: C,
): Value<Present<W[number], C>> {
  const made = value<W[number], C>(help, 'WORD', config, (given) => {
    if (!words.includes(given)) throw new Error(`is not one of: ${words.join(', ')}`);
    return given;
  });
  return { ...made, choices: words };
}

interface Range {
  min?: number;
  max?: number;
  /** The smallest value itself is refused too, as in `0 < x`. */
  above?: number;
}

export function number<const C extends Presence<number> & Range>(help: string, config?: C): Value<Present<number, C>> {
  return value<number, C>(help, 'X', config, (given) => inRange(toNumber(given), config));
}

export function integer<const C extends Presence<number> & Range>(help: string, config?: C): Value<Present<number, C>> {
  return value<number, C>(help, 'N', config, (given) => inRange(toInteger(given), config));
}

/** Whole numbers as `3`, `0,4,8` or `2-5`; in rising order, each once. */
export function integers<const C extends Presence<number[]> & Range>(help: string, config?: C): Value<Present<number[], C>> {
  return value<number[], C>(help, 'N,..', config, (given) => {
    const found = new Set<number>();
    for (const part of given.split(',')) {
      const range = /^\s*(\d+)\s*-\s*(\d+)\s*$/.exec(part);
      const [first, last] = range ? [toInteger(range[1] ?? ''), toInteger(range[2] ?? '')] : [toInteger(part), toInteger(part)];
      if (last < first)
        throw new Error(`counts down in '${part.trim()}'; write the smaller number first, as in ${last}-${first}`);
      if (last - first > 100_000) throw new Error(`names ${last - first + 1} numbers in '${part.trim()}'; give a shorter range`);
      for (let n = first; n <= last; n++) found.add(inRange(n, config));
    }
    return [...found].sort((a, b) => a - b);
  });
}

/** A seed of the random numbers. */
export function seed(help = 'seed of the random numbers; the same seed gives the same result'): Value<number> {
  return integer(help, { default: 0, min: 0, max: Number.MAX_SAFE_INTEGER });
}

/** A file that must be there. */
export function file<const C extends Presence<string>>(help: string, config?: C): Value<Present<string, C>> {
  return value<string, C>(help, 'FILE', config, (given) => existing(given, 'file'));
}

/** A folder that must be there. */
export function folder<const C extends Presence<string>>(help: string, config?: C): Value<Present<string, C>> {
  return value<string, C>(help, 'DIR', config, (given) => existing(given, 'folder'));
}

/** A file to write. With `endings`, the name must end in one of them. */
export function outFile<const C extends Presence<string> & { endings?: readonly string[] }>(
  help: string,
  config?: C,
): Value<Present<string, C>> {
  return value<string, C>(help, 'FILE', config, (given) => {
    if (given.trim() === '') throw new Error('is empty; give the name of the file to write');
    const endings = config?.endings;
    if (endings && !endings.some((ending) => given.toLowerCase().endsWith(ending))) {
      throw new Error(`has the wrong ending; the name must end in ${endings.join(' or ')}`);
    }
    if (find(given)?.isDirectory()) throw new Error('is a folder; give the name of a file');
    checkWritable(dirname(given));
    return given;
  });
}

/** A folder to write into; made when it is not there. */
export function outFolder<const C extends Presence<string>>(help: string, config?: C): Value<Present<string, C>> {
  return value<string, C>(help, 'DIR', config, (given) => {
    if (given.trim() === '') throw new Error('is empty; give the name of the folder to write');
    const found = find(given);
    if (found && !found.isDirectory()) throw new Error('is a file; give the name of a folder');
    checkWritable(given);
    return given;
  });
}

/** The same value, given any number of times: `--edit a --edit b`. */
export function repeatable<T>(one: Value<T>): Value<NonNullable<T>[]> {
  return { ...one, fallback: [], repeatable: true, parse: (given) => one.parse(given) as never };
}

function toNumber(given: string): number {
  const trimmed = given.trim();
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed)) throw new Error('is not a number; give one such as 3 or 0.5');
  const parsed = Number(trimmed);
  if (!Number.isFinite(parsed)) throw new Error('is too large for a number');
  return parsed;
}

function toInteger(given: string): number {
  const parsed = toNumber(given);
  if (!Number.isInteger(parsed)) throw new Error('is not a whole number; give one such as 3');
  if (!Number.isSafeInteger(parsed)) throw new Error(`is too large; whole numbers go up to ${Number.MAX_SAFE_INTEGER}`);
  return parsed;
}

function inRange(given: number, { min, max, above }: Range = {}): number {
  const tooSmall = (min !== undefined && given < min) || (above !== undefined && given <= above);
  if (!tooSmall && (max === undefined || given <= max)) return given;
  const from = above === undefined ? min : above;
  const low = from === undefined ? '' : above === undefined ? `at least ${from}` : `above ${from}`;
  const high = max === undefined ? '' : `at most ${max}`;
  throw new Error(`is out of range; it must be ${[low, high].filter(Boolean).join(' and ')}`);
}

/** What is at a path; undefined: nothing. */
function find(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    if (code === 'EACCES') throw new Error('cannot be reached: no permission for a folder on its path');
    if (code === 'ENAMETOOLONG') throw new Error('is too long for a file name; choose a shorter one');
    throw new Error(`cannot be read: ${message}`);
  }
}

/** Looks at the folder, or where it is not there at the nearest one above, before hours of work whose result could not be kept. */
function checkWritable(folder: string): void {
  const found = find(folder);
  if (found === undefined) {
    if (dirname(folder) !== folder) checkWritable(dirname(folder));
    return;
  }
  if (!found.isDirectory()) throw new Error(`cannot be written: ${folder} is a file; choose another place`);
  try {
    accessSync(folder, constants.W_OK);
  } catch {
    throw new Error(`cannot be written: no permission for the folder ${folder}; choose another place`);
  }
}

function existing(given: string, kind: 'file' | 'folder'): string {
  if (given.trim() === '') throw new Error(`is empty; give the name of a ${kind}`);
  const found = find(given);
  if (!found) throw new Error(`does not exist; check the path (looked from ${process.cwd()})`);
  if (kind === 'file' && found.isDirectory()) throw new Error('is a folder; give the name of a file');
  if (kind === 'folder' && !found.isDirectory()) throw new Error('is a file; give the name of a folder');
  return given;
}
