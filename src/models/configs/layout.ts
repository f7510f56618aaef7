/** How a family lies on disk: what its configuration says, and what its files call the weights. */
import type { z } from 'zod';

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
