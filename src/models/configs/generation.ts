/** generation_config.json: what ends an answer, how long it is, and which tokens may be chosen. */
import { z } from 'zod';
import { count, id, ids, positive } from '../../files/config.ts';

const several = z.array(z.array(id).min(1, 'expected token ids'), 'expected a list of lists of token ids');
const atLeast0 = z.int('expected a whole number').nonnegative('expected 0 or more');

export const generationConfig = z.looseObject({
  bos_token_id: id.nullish(),
  eos_token_id: ids,
  pad_token_id: id.nullish(),
  max_new_tokens: count.nullish(),
  min_length: atLeast0.default(0),
  min_new_tokens: atLeast0.nullish(),
  repetition_penalty: positive.default(1),
  no_repeat_ngram_size: atLeast0.default(0),
  bad_words_ids: several.nullish(),
  sequence_bias: z
    .array(
      z.tuple([z.array(id).min(1), z.number()]),
      'expected a list of token ids and the number that is added to their last one',
    )
    .nullish(),
  suppress_tokens: z.array(z.int(), 'expected token ids').nullish(),
  begin_suppress_tokens: z.array(z.int(), 'expected token ids').nullish(),
  forced_bos_token_id: id.nullish(),
  forced_eos_token_id: ids,
  exponential_decay_length_penalty: z.tuple([atLeast0, positive], 'expected a number of tokens and a factor').nullish(),
});
export type GenerationConfig = z.output<typeof generationConfig>;

/** Settings that choose tokens in a way that is not computed here, with the values at which they do nothing. */
const notComputed: Readonly<Record<string, readonly unknown[]>> = {
  num_beams: [1],
  guidance_scale: [1],
  penalty_alpha: [0],
  dola_layers: [],
  encoder_repetition_penalty: [1],
  encoder_no_repeat_ngram_size: [0],
  force_words_ids: [],
  constraints: [],
  stop_strings: [],
  watermarking_config: [],
};

/** `num_beams 5` for each setting that would change the answer and is not computed. */
export const notComputedIn = (config: GenerationConfig): string[] =>
  Object.entries(notComputed)
    .filter(([name, idle]) => config[name] != null && !idle.includes(config[name]))
    .map(([name]) => `${name} ${JSON.stringify(config[name])}`);
