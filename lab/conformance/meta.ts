/**
 * meta.json of expected values, in two layouts that become one: of the older families, which are asked with bare prompts, and of the modern ones,
 * which are asked with messages.
 */
import { resolve } from 'node:path';
import { z } from 'zod';
import type { EditRecord } from '../../src/input/records.ts';
import { tolerances } from './checks.ts';

const whole = z.int().nonnegative();
const ids = z.array(z.int());
const run = z.tuple([whole, whole]);
const pair = z.tuple([whole, whole]).nullable();
const perLayer = z.array(z.number());
const perModule = z.object({ attn: perLayer.optional(), mlp: perLayer.optional(), layer: perLayer.optional() });

const lens = z.object({
  token_id: whole,
  prob: perModule.optional(),
  logit: perModule.optional(),
  contribution: perModule.optional(),
});

const part = z.union([
  z.object({ type: z.literal('text'), text: z.string() }),
  z.object({ type: z.literal('image'), image: z.string() }),
]);
const message = z.object({ role: z.string(), content: z.union([z.string(), z.array(part)]) });

/** What a processor made of the pictures of a case; each family has its own fields. */
const grid = z.object({
  image_grid_thw: z.array(z.tuple([whole, whole, whole])).optional(),
  window_index: z.array(whole).optional(),
  cu_window_seqlens: z.array(whole).optional(),
  rows: z.array(whole).optional(),
  cols: z.array(whole).optional(),
  tiles: z.array(whole.nullable()).optional(),
  canvas: z.array(pair).optional(),
  packed: z.array(pair).optional(),
  unpadded: z.array(pair).optional(),
});

const testCase = z
  .object({
    prompt: z.string().optional(),
    image: z.string().nullish(),
    messages: z.array(message).optional(),
    images: z.array(z.string()).optional(),
    visual_range: z.tuple([whole, whole]).nullish(),
    prompt_input_ids: ids.optional(),
    sequence_input_ids: z.array(ids).optional(),
    rendered: z.string().optional(),
    input_ids: ids.optional(),
    spans: z.array(z.array(run)).optional(),
    position_ids: z.array(ids).optional(),
    rope_delta: z.int().optional(),
    grid: grid.nullish(),
    greedy_ids: ids.optional(),
    greedy_text: z.string().optional(),
    module_contribution: z.object({ key: lens.optional(), wrong: lens.optional() }).optional(),
  })
  .refine(({ prompt, messages }) => prompt !== undefined || messages !== undefined, 'expected a prompt or messages')
  .transform((one) => ({ ...one, images: one.images ?? (one.image == null ? [] : [one.image]) }));

const query = z.object({
  name: z.string(),
  prompt: z.string(),
  target: z.string(),
  image: z.string().nullish(),
  label_ids: ids.optional(),
  label_mask: z.array(z.number()).optional(),
  input_ids: ids.optional(),
  target_start: whole.optional(),
  visual_positions: z.array(whole).optional(),
});

const accuracy = z.object({ acc: z.number() });
const meanInGroups = z
  .object({
    reliability: accuracy.optional(),
    generality: z.record(z.string(), accuracy).default({}),
    locality: z.record(z.string(), accuracy).default({}),
  })
  .transform(
    ({ reliability, generality, locality }): Record<string, number> =>
      Object.fromEntries(
        Object.entries({ ...(reliability && { reliability }), ...generality, ...locality }).map(([name, { acc }]) => [name, acc]),
      ),
  );

const answered = z.object({ target_ids: ids.optional(), before_ids: ids.optional(), after_ids: ids.optional() });

const record = z.object({
  src: z.string(),
  rephrase: z.string(),
  alt: z.string(),
  image: z.string(),
  image_rephrase: z.string(),
  loc: z.string(),
  loc_ans: z.string(),
  m_loc: z.string(),
  m_loc_q: z.string(),
  m_loc_a: z.string(),
});

const trainingStep = z.object({
  records: z.array(whole),
  sampled_visual_tokens: z.array(whole),
  generality_choice: z.string(),
  loss: z.number().optional(),
  parts: z.record(z.string(), z.union([z.number(), z.record(z.string(), z.number())])).default({}),
});

/**
 * A tensor whose gradient is smaller than this share of all gradients is rounding noise: that of the keys' bias is zero in exact arithmetic (a
 * softmax does not see what is added to all of its scores), and comes out as 1e-8 of the others. The smallest gradient that is one is 8e-4.
 */
export const noiseShare = 1e-6;

const manySteps = z
  .object({
    config: z.object({
      lr: z.number(),
      rel: z.number(),
      gen: z.number(),
      loc: z.number(),
      influence_mapper: z.number(),
      traced_layers: z.array(whole),
    }),
    steps: z.array(trainingStep),
  })
  .transform((training) => ({
    ...training,
    /** of the names of a step's tensors */
    prefix: (step: number) => `train.${step}.`,
    /** what differences of a gradient are compared with: its largest element; noise may differ by as much as the noise */
    scaleOf: (largest: number, all: number) => (largest >= noiseShare * all ? largest : (noiseShare * all) / tolerances.gradient),
  }));

/** One step with the reliability sample for the mapper's losses; all losses have the weight 1, those of the mapper λ. */
const oneStep = trainingStep
  .omit({ generality_choice: true })
  .extend({ traced_layers: z.array(whole), influence_lambda: z.number() })
  .transform(({ traced_layers, influence_lambda, ...step }) => ({
    config: { lr: 1e-4, rel: 1, gen: 1, loc: 1, influence_mapper: influence_lambda, traced_layers },
    steps: [{ ...step, generality_choice: 'reliability' }],
    prefix: (_step: number) => 'train.',
    scaleOf: (largest: number, all: number) => Math.max(largest, 1e-4 * all),
  }));

export const layoutsSchema = z.object({ layouts: z.array(z.string()).min(1, 'expected at least one folder').optional() });

export const metaSchema = z.object({
  layers: whole.optional(),
  hidden_size: whole.optional(),
  visual_tokens: whole.optional(),
  vocab_rows: whole.optional(),
  vision_layers: whole.optional(),
  image_token_id: whole.optional(),
  cases: z.array(testCase).default([]),
  visual_attribution: z.array(z.object({ case: whole, layer: whole, positions: z.array(whole).optional() })).default([]),
  vead: z
    .object({
      edit_layer: whole,
      heads: whole,
      prompt_end: whole.optional(),
      edit: z.object({ prompt: z.string(), target: z.string(), image: z.string() }),
      queries: z.array(query).default([]),
    })
    .optional(),
  evaluation: z
    .object({
      mean: z.union([z.record(z.string(), z.number()), meanInGroups]).optional(),
      per_record: z.array(z.record(z.string(), z.number())).optional(),
      records: z.array(record).optional(),
      queries: z.array(z.record(z.string(), answered)).optional(),
    })
    .optional(),
  training: z.union([manySteps, oneStep]).optional(),
});

export type Meta = z.output<typeof metaSchema>;
export type Case = Meta['cases'][number];

/** A record of meta.json: its prompts are asked as they stand. */
export function recordOf(raw: z.output<typeof record>, index: number, imagesDir: string): EditRecord {
  const path = (file: string): string => resolve(imagesDir, file);
  const request = { image: path(raw.image), prompt: raw.src, target: raw.alt };
  return {
    index,
    request,
    queries: {
      reliability: request,
      textGenerality: { ...request, prompt: raw.rephrase },
      modalGenerality: { ...request, image: path(raw.image_rephrase) },
      textLocality: { image: null, prompt: raw.loc, target: raw.loc_ans },
      modalLocality: { image: path(raw.m_loc), prompt: raw.m_loc_q, target: raw.m_loc_a },
    },
  };
}
