/** Configuration files: reading, checking, and the kinds of fields that they have. */
import { z } from 'zod';
import { type Json, readJson } from './json.ts';
import { parseConfig } from './schema.ts';

export { readJson } from './json.ts';
export { parseConfig } from './schema.ts';

/** Reads and checks one JSON file. A field that is null is not set: transformers writes all fields that it knows. */
export function readConfig<S extends z.ZodType>(path: string, schema: S): z.output<S> {
  return parseConfig(path, schema, withoutNulls(readJson(path)));
}

/** The same without the fields of objects that are null. */
export function withoutNulls(value: Json): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const set = Object.entries(value).filter(([, field]) => field !== null);
  return Object.fromEntries(set.map(([key, field]) => [key, withoutNulls(field)]));
}

export const count = z.int('expected a whole number').positive('expected a number above 0');
/** Sizes are bounded before anything is built by them: a damaged file must not fill the memory. */
export const upTo = (limit: number) => count.max(limit, `expected at most ${limit}`);
/** layers of one part */
export const layerCount = upTo(1024);
/** a width, or a number of heads, tokens or pixels */
export const width = upTo(2 ** 20);
export const id = z.int('expected a token id').nonnegative('expected a token id');
export const ids = z
  .union([id.transform((one) => [one]), z.array(id)], 'expected a token id or a list of them')
  .nullish()
  .transform((list) => list ?? []);
export const positive = z.number('expected a number').positive('expected a number above 0');
export const flag = (value: boolean) => z.boolean('expected true or false').default(value);
export const exactly = <T extends string | boolean | number>(value: T, why: string) =>
  z.literal(value, `only ${JSON.stringify(value)} is supported (${why})`).default(value as never);

/** Activation functions by their names in configuration files. */
export const activation = z.enum(
  ['gelu', 'gelu_fast', 'gelu_new', 'gelu_pytorch_tanh', 'quick_gelu', 'relu', 'silu', 'swish'],
  'expected one of gelu, gelu_fast, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, silu, swish',
);
export type Activation = z.output<typeof activation>;

export function headsDivideWidth(config: { hidden_size: number; num_attention_heads: number }, context: z.RefinementCtx): void {
  if (config.hidden_size % config.num_attention_heads !== 0) {
    context.addIssue({
      code: 'custom',
      path: ['num_attention_heads'],
      message: `${config.num_attention_heads} heads do not divide hidden_size ${config.hidden_size}`,
    });
  }
}

/** A picture of at least one patch; what the patches leave over at its right and lower edge is not read. */
export function holdsAPatch(config: { image_size: number; patch_size: number }, context: z.RefinementCtx): void {
  if (config.patch_size > config.image_size)
    context.addIssue({
      code: 'custom',
      path: ['patch_size'],
      message: `patches of ${config.patch_size} pixels are larger than the picture of ${config.image_size}`,
    });
}
