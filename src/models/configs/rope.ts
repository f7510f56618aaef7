/**
 * Settings of rotary positions in config.json: `rope_parameters` of transformers 5, `rope_theta` and `rope_scaling` of earlier versions.
 * Every kind of scaling is computed as transformers does (rotary.ts) or refused by name.
 */
import { z } from 'zod';
import { positive, width } from '../../files/config.ts';

const factors = z
  .array(positive, 'expected a list of numbers, one per pair of a head')
  .max(4096, 'expected at most 4096 numbers');

/** Heads of which a part is turned are computed for one kind only. */
const whole = {
  partial_rotary_factor: z.literal(1, 'only 1 is supported: all numbers of a head are turned').optional(),
};

const kinds = z.discriminatedUnion(
  'rope_type',
  [
    z.looseObject({ rope_type: z.literal('default'), ...whole }),
    z.looseObject({ rope_type: z.literal('linear'), ...whole, factor: positive }),
    // It changes texts above max_position_embeddings only, and those are refused.
    z.looseObject({ rope_type: z.literal('dynamic'), ...whole, factor: positive }),
    z.looseObject({
      rope_type: z.literal('llama3'),
      ...whole,
      factor: positive,
      low_freq_factor: positive,
      high_freq_factor: positive,
      original_max_position_embeddings: width,
    }),
    z.looseObject({
      rope_type: z.literal('yarn'),
      ...whole,
      factor: positive,
      original_max_position_embeddings: width,
      attention_factor: positive.nullish(),
      beta_fast: positive.nullish(),
      beta_slow: positive.nullish(),
      mscale: z.number('expected a number').nullish(),
      mscale_all_dim: z.number('expected a number').nullish(),
      truncate: z.boolean('expected true or false').nullish(),
    }),
    z.looseObject({
      rope_type: z.literal('longrope'),
      ...whole,
      factor: positive,
      original_max_position_embeddings: width.min(2, 'expected at least 2'),
      attention_factor: positive.nullish(),
      short_factor: factors,
      long_factor: factors,
    }),
    z.looseObject({
      rope_type: z.literal('proportional'),
      factor: positive.default(1),
      partial_rotary_factor: positive.max(1, 'expected at most 1').default(1),
    }),
  ],
  'expected default, linear, dynamic, llama3, yarn, longrope or proportional; other scalings of rotary positions are not supported',
);
export type RopeScaling = z.output<typeof kinds>;

/** The fields of config.json that say how positions are turned, after `gatherRope`. */
export const ropeFields = {
  rope_theta: positive.default(10000),
  rope_scaling: kinds.optional(),
  rope_parameters: kinds.optional(),
};

/** The fields of a decoder whose positions have three axes, time, row and column, after `gatherRope`. */
export const sectionFields = {
  mrope_section: z.tuple([width, width, width], 'expected three numbers of pairs').optional(),
};

type Raw = Readonly<Record<string, unknown>>;
const isRecord = (value: unknown): value is Raw => typeof value === 'object' && value !== null && !Array.isArray(value);
/** Kinds that take their factor from the lengths of texts where none is given. */
const lengthKinds: ReadonlySet<unknown> = new Set(['yarn', 'longrope']);

/**
 * Brings together what files of different versions say in different fields. What stands in the settings comes before the field beside them,
 * except for the length of the texts of the first training, as in transformers. Runs before the fields are checked.
 * @param defaults of fields that a file may leave out
 * @param sections whether positions have several axes: `mrope_section` is then a field beside the settings
 */
export const gatherRope =
  (defaults: { max_position_embeddings: number }, sections = false) =>
  (config: unknown): unknown => {
    if (!isRecord(config)) return config;
    const { original_max_position_embeddings: first, partial_rotary_factor: partial, ...rest } = config;
    const key = config.rope_scaling == null ? 'rope_parameters' : 'rope_scaling';
    const given = config[key] ?? {};
    if (!isRecord(given)) return config;
    const length = config.max_position_embeddings ?? defaults.max_position_embeddings;
    const original = first ?? given.original_max_position_embeddings ?? length;
    const byLayer = Object.keys(given).find((name) => isRecord(given[name]));
    const said = byLayer === undefined ? (given.rope_type ?? given.type ?? 'default') : `${byLayer}, one of several`;
    // Before transformers 4.49 the sections were a kind of their own.
    const kind = sections && said === 'mrope' ? 'default' : said;
    const factor = given.factor ?? (lengthKinds.has(kind) ? Number(length) / Number(original) : undefined);
    return {
      ...rest,
      rope_theta: given.rope_theta ?? config.rope_theta ?? undefined,
      rope_scaling: undefined,
      rope_parameters: undefined,
      ...(sections ? { mrope_section: given.mrope_section } : {}),
      [key]: {
        ...given,
        rope_type: kind,
        factor,
        original_max_position_embeddings: original,
        partial_rotary_factor: given.partial_rotary_factor ?? partial ?? undefined,
      },
    };
  };

/** The one scaling of a decoder whose layers are all turned alike. */
export const ropeOf = (config: {
  rope_scaling?: RopeScaling | undefined;
  rope_parameters?: RopeScaling | undefined;
}): RopeScaling => config.rope_scaling ?? config.rope_parameters ?? { rope_type: 'default' };
