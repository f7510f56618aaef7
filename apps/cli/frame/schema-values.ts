/** Values of a command from a schema, so that the command line takes what the library and the server take. */
import type { z } from 'zod';
import type { Value, Values } from './values.ts';

/** One value for each field; its description is the help. */
export function schemaValues(schema: z.ZodObject): Values {
  return Object.fromEntries(Object.entries(schema.shape).map(([name, field]) => [name, valueFor(field as z.ZodType)]));
}

function valueFor(field: z.ZodType): Value<unknown> {
  const help = field.description ?? '';
  const absent = field.safeParse(undefined);
  const fallback = absent.success ? absent.data : undefined;
  const base = { help, required: !absent.success, fallback, repeatable: false };
  if (field.safeParse(true).success) return { ...base, placeholder: '', parse: () => true };
  const choices = choicesOf(field);
  const numeric = [1, 2, 0.5, 0].some((value) => field.safeParse(value).success);
  return {
    ...base,
    placeholder: choices !== undefined ? 'WORD' : numeric ? 'N' : 'TEXT',
    ...(choices === undefined ? {} : { choices }),
    parse(text) {
      const number = Number(text);
      const given = numeric && text.trim() !== '' && Number.isFinite(number) ? number : text;
      const read = field.safeParse(given);
      if (read.success) return read.data;
      if (choices !== undefined) throw new Error(`is not one of: ${choices.join(', ')}`);
      throw new Error(`is not valid: ${read.error.issues[0]!.message.replace(/^(Invalid input|Too (big|small)): /, '')}`);
    },
  };
}

/** The words of a choice, whatever its default. */
function choicesOf(field: z.ZodType): readonly string[] | undefined {
  const { def } = field as unknown as { def: { type: string; innerType?: z.ZodType; entries?: Record<string, string> } };
  if (def.type === 'enum') return Object.values(def.entries!);
  return def.innerType === undefined ? undefined : choicesOf(def.innerType);
}
