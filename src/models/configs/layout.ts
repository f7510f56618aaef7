/** How a family lies on disk: what its configuration says, and what its files call the weights. */
import { z } from 'zod';

/** Numbered layers of one part: where they stand among the weights, and what says how many there are. */
export interface LayerCount {
  /** `language_model.model.layers.` */
  readonly prefix: string;
  /** `text_config.num_hidden_layers` */
  readonly field: string;
  readonly count: number;
}

export interface Layout<C> {
  readonly schema: z.ZodType<C>;
  /** The name that the architecture reads a weight by, for the name that a file has; files of other versions have other names. */
  rename(name: string): string;
  layers(config: C): readonly LayerCount[];
}

/** Every pattern that fits, in order, is replaced by what stands behind it. */
export const renameBy =
  (rules: readonly (readonly [pattern: RegExp, replacement: string])[]) =>
  (name: string): string =>
    rules.reduce((renamed, [pattern, replacement]) => renamed.replace(pattern, replacement), name);

/** A part of a configuration that is of one of several kinds, by its `model_type`. @param otherwise the kind of a file that does not name it */
export const byModelType = <S extends z.ZodType>(kinds: Readonly<Record<string, S>>, otherwise: string) =>
  z
    .looseObject({
      model_type: z
        .string()
        .refine(
          (type) => Object.hasOwn(kinds, type),
          `expected ${Object.keys(kinds)
            .map((kind) => `"${kind}"`)
            .join(' or ')}`,
        )
        .default(otherwise),
    })
    .transform((value, context): z.output<S> => {
      const parsed = kinds[value.model_type]!.safeParse(value);
      if (parsed.success) return parsed.data;
      for (const { path, message } of parsed.error.issues) context.issues.push({ code: 'custom', path, message, input: value });
      return z.NEVER;
    });
