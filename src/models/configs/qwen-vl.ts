/** config.json of Qwen2.5-VL and Qwen3-VL, with the defaults of transformers' Qwen2_5_VLConfig and Qwen3VLConfig. */
import { z } from 'zod';
import { activation, exactly, flag, id, layerCount, positive, width } from '../../files/config.ts';
import { type Layout, renameBy } from './layout.ts';
import { qwen3VlTextConfig, qwen25VlTextConfig } from './llama.ts';

const layer = z.int('expected the number of a layer').nonnegative('expected the number of a layer');
const layers = z.array(layer, 'expected numbers of layers');

/** What the image encoders of both have in common. */
const vision = {
  num_heads: width.default(16),
  in_channels: exactly(3, 'red, green, blue'),
  temporal_patch_size: width.max(8, 'expected at most 8').default(2),
  spatial_merge_size: width.max(16, 'expected at most 16').default(2),
  out_hidden_size: width.default(3584),
  /** of transformers 5; earlier files do not say it */
  rope_parameters: z
    .looseObject({
      rope_type: exactly('axial', 'rows and columns turn a half of a head each'),
      rope_theta: positive.default(10000),
    })
    .prefault({}),
};

interface Heads {
  depth: number;
  hidden_size: number;
  num_heads: number;
}

/** Rows and columns turn pairs of a head each. */
function headsFit({ hidden_size: d, num_heads: heads }: Heads, context: z.RefinementCtx): void {
  if (d % (4 * heads) !== 0)
    context.addIssue({ code: 'custom', path: ['num_heads'], message: `4 times ${heads} heads do not divide hidden_size ${d}` });
}

const withinDepth =
  (field: string, of: (config: never) => readonly number[]) =>
  (config: Heads, context: z.RefinementCtx): void => {
    const wrong = of(config as never).find((index) => index >= config.depth);
    if (wrong !== undefined)
      context.addIssue({ code: 'custom', path: [field], message: `there is no layer ${wrong}: depth is ${config.depth}` });
  };

/** Qwen2_5_VLVisionConfig */
const qwen25VisionConfig = z
  .looseObject({
    model_type: z.enum(['qwen2_5_vl', 'qwen2_5_vl_vision'], 'expected the image encoder of a Qwen2.5-VL').optional(),
    depth: layerCount.default(32),
    hidden_size: width.default(3584),
    hidden_act: activation.default('silu'),
    intermediate_size: width.default(3420),
    patch_size: width.default(14),
    window_size: width.default(112),
    /** layers that see the whole picture */
    fullatt_block_indexes: layers.default([7, 15, 23, 31]),
    ...vision,
  })
  .superRefine(headsFit)
  .superRefine(
    withinDepth('fullatt_block_indexes', (config: { fullatt_block_indexes: number[] }) => config.fullatt_block_indexes),
  )
  .superRefine(({ window_size, patch_size, spatial_merge_size }, context) => {
    if (window_size < patch_size * spatial_merge_size)
      context.addIssue({
        code: 'custom',
        path: ['window_size'],
        message: `a window of ${window_size} pixels holds no visual token of ${patch_size * spatial_merge_size}`,
      });
  });
export type Qwen25VisionConfig = z.output<typeof qwen25VisionConfig>;

/** Qwen3VLVisionConfig */
const qwen3VisionConfig = z
  .looseObject({
    model_type: z.enum(['qwen3_vl', 'qwen3_vl_vision'], 'expected the image encoder of a Qwen3-VL').optional(),
    depth: layerCount.default(27),
    hidden_size: width.default(1152),
    hidden_act: activation.default('gelu_pytorch_tanh'),
    intermediate_size: width.default(4304),
    patch_size: width.default(16),
    num_position_embeddings: width
      .default(2304)
      .refine((count) => Number.isInteger(Math.sqrt(count)), 'expected a square number: the positions lie in a square'),
    /** layers whose outputs go to the first layers of the decoder */
    deepstack_visual_indexes: layers.default([8, 16, 24]),
    ...vision,
  })
  .superRefine(headsFit)
  .superRefine(
    withinDepth('deepstack_visual_indexes', (config: { deepstack_visual_indexes: number[] }) => config.deepstack_visual_indexes),
  );
export type Qwen3VisionConfig = z.output<typeof qwen3VisionConfig>;

function tokensFit(
  { text_config, vision_config }: { text_config: { hidden_size: number }; vision_config: { out_hidden_size: number } },
  context: z.RefinementCtx,
): void {
  if (vision_config.out_hidden_size !== text_config.hidden_size)
    context.addIssue({
      code: 'custom',
      path: ['vision_config', 'out_hidden_size'],
      message: `visual tokens of ${vision_config.out_hidden_size} numbers do not fit a decoder of hidden_size ${text_config.hidden_size}`,
    });
}

type Raw = Readonly<Record<string, unknown>>;
const isRecord = (value: unknown): value is Raw => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Before transformers 4.52 the decoder's fields stand beside `vision_config`. */
function nested(value: unknown): unknown {
  if (!isRecord(value) || value.text_config !== undefined) return value;
  const { vision_config, model_type, image_token_id, ...rest } = value;
  return { ...rest, model_type, image_token_id, vision_config, text_config: rest };
}

/** Qwen2_5_VLConfig */
export const qwen25VlConfig = z.preprocess(
  nested,
  z
    .looseObject({
      model_type: z.literal('qwen2_5_vl', 'expected "qwen2_5_vl"'),
      image_token_id: id.default(151655),
      tie_word_embeddings: flag(false),
      text_config: qwen25VlTextConfig.prefault({}),
      vision_config: qwen25VisionConfig.prefault({}),
    })
    .superRefine(tokensFit),
);
export type Qwen25VlConfig = z.output<typeof qwen25VlConfig>;

/** Qwen3VLConfig */
export const qwen3VlConfig = z
  .looseObject({
    model_type: z.literal('qwen3_vl', 'expected "qwen3_vl"'),
    image_token_id: id.default(151655),
    tie_word_embeddings: flag(false),
    text_config: qwen3VlTextConfig.prefault({}),
    vision_config: qwen3VisionConfig.prefault({}),
  })
  .superRefine(tokensFit)
  .superRefine(({ text_config, vision_config }, context) => {
    const [deep, layers] = [vision_config.deepstack_visual_indexes.length, text_config.num_hidden_layers];
    if (deep > layers)
      context.addIssue({
        code: 'custom',
        path: ['vision_config', 'deepstack_visual_indexes'],
        message: `expected at most ${layers} layers, as many as the decoder has, got ${deep}`,
      });
  });
export type Qwen3VlConfig = z.output<typeof qwen3VlConfig>;

const counts =
  (decoder: string, tower: string) =>
  ({ text_config, vision_config }: { text_config: { num_hidden_layers: number }; vision_config: { depth: number } }) => [
    { prefix: `${decoder}layers.`, field: 'text_config.num_hidden_layers', count: text_config.num_hidden_layers },
    { prefix: `${tower}blocks.`, field: 'vision_config.depth', count: vision_config.depth },
  ];

/** Published files keep the names of before transformers 4.52; a model in memory has those of Qwen3-VL. */
export const qwen25VlLayout: Layout<Qwen25VlConfig> = {
  schema: qwen25VlConfig,
  rename: renameBy([
    [/^model\.language_model\./, 'model.'],
    [/^model\.visual\./, 'visual.'],
  ]),
  layers: counts('model.', 'visual.'),
};

export const qwen3VlLayout: Layout<Qwen3VlConfig> = {
  schema: qwen3VlConfig,
  rename: (name) => name,
  layers: counts('model.language_model.', 'model.visual.'),
};
