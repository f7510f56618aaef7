/** JSON that is checked against a schema when it is read. */
import { z } from 'zod';
import { MAX_BYTES, parseJson, readJson } from './json.ts';
import { readText } from './text.ts';

/** Checks `value` against `schema`; the faults of one file go into one error that names file and fields. */
export function parseConfig<S extends z.ZodType>(path: string, schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  const { issues } = result.error;
  const faults = issues.slice(0, MOST_FAULTS).map((issue) => {
    const field = issue.path.map(String).join('.') || 'the whole file';
    const given = issue.code === 'custom' || issue.input === undefined ? '' : `, but it is ${shortened(issue.input)}`;
    return `  ${field}: ${issue.message}${given}`;
  });
  const more = issues.length > MOST_FAULTS ? `\n  and ${issues.length - MOST_FAULTS} more` : '';
  throw new Error(`${path} does not fit:\n${faults.join('\n')}${more}`);
}

const MOST_FAULTS = 40;

function shortened(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Reads and checks one JSON file. */
export function readJsonAs<S extends z.ZodType>(path: string, schema: S): z.output<S> {
  return parseConfig(path, schema, readJson(path));
}

/** Whatever is in an object. */
export const anyObject = z.looseObject({});

/**
 * The lines of a file of JSON lines that a program appends to.
 * @param broken what happens to a line that is cut off or does not fit: it is left out, or it is an error that names the line
 */
export function readJsonLines<S extends z.ZodType>(path: string, schema: S, broken: 'skip' | 'refuse' = 'refuse'): z.output<S>[] {
  return parseJsonLines(readText(path, MAX_BYTES), path, schema, broken);
}

export function parseJsonLines<S extends z.ZodType>(
  text: string,
  what: string,
  schema: S,
  broken: 'skip' | 'refuse' = 'refuse',
): z.output<S>[] {
  return text.split('\n').flatMap((line, i): z.output<S>[] => {
    if (line.trim() === '') return [];
    try {
      const place = `line ${i + 1} of ${what}`;
      return [parseConfig(place, schema, parseJson(line, place))];
    } catch (error) {
      if (broken === 'skip') return [];
      throw error;
    }
  });
}
