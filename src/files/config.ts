/** Configuration files with the defaults of transformers 4.43: published files leave out what equals the default. */
import { z } from 'zod';
import { readJson } from './json.ts';

export { type Json, readJson } from './json.ts';

/** Checks `value` against `schema`; all faults of one file go into one error that names file and fields. */
export function parseConfig<S extends z.ZodType>(path: string, schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  const faults = result.error.issues.map((issue) => {
    const field = issue.path.map(String).join('.') || 'the whole file';
    const given = issue.code === 'custom' || issue.input === undefined ? '' : `, but it is ${shortened(issue.input)}`;
    return `  ${field}: ${issue.message}${given}`;
  });
  throw new Error(`${path} does not fit:\n${faults.join('\n')}`);
}

function shortened(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Reads and checks one JSON file. */
export function readConfig<S extends z.ZodType>(path: string, schema: S): z.output<S> {
  return parseConfig(path, schema, readJson(path));
}

const count = z.int('expected a whole number').positive('expected a number above 0');
/** Sizes are bounded before anything is built by them: a damaged file must not fill the memory. */
const upTo = (limit: number) => count.max(limit, `expected at most ${limit}`);
/** layers of one part */
export const layerCount = upTo(1024);
/** a width, or a number of heads, tokens or pixels */
export const width = upTo(2 ** 20);
export const id = z.int('expected a token id').nonnegative('expected a token id');
const ids = z
  .union([id.transform((one) => [one]), z.array(id)], 'expected a token id or a list of them')
  .nullish()
  .transform((list) => list ?? []);
const positive = z.number('expected a number').positive('expected a number above 0');
const flag = (value: boolean) => z.boolean('expected true or false').default(value);
const exactly = <T extends string | boolean | number>(value: T, why: string) =>
  z.literal(value, `only ${JSON.stringify(value)} is supported (${why})`).default(value as never);

/** Activation functions by their names in configuration files. */
export const activation = z.enum(
  ['gelu', 'gelu_fast', 'gelu_new', 'gelu_pytorch_tanh', 'quick_gelu', 'relu', 'silu', 'swish'],
  'expected one of gelu, gelu_fast, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, silu, swish',
);
export type Activation = z.output<typeof activation>;

function headsDivideWidth(config: { hidden_size: number; num_attention_heads: number }, context: z.RefinementCtx): void {
  if (config.hidden_size % config.num_attention_heads !== 0) {
    context.addIssue({
      code: 'custom',
      path: ['num_attention_heads'],
      message: `${config.num_attention_heads} heads do not divide hidden_size ${config.hidden_size}`,
    });
  }
}

/** A picture of at least one patch; what the patches leave over at its right and lower edge is not read. */
function holdsAPatch(config: { image_size: number; patch_size: number }, context: z.RefinementCtx): void {
  if (config.patch_size > config.image_size)
    context.addIssue({
      code: 'custom',
      path: ['patch_size'],
      message: `patches of ${config.patch_size} pixels are larger than the picture of ${config.image_size}`,
    });
}

/** Rotary positions for longer texts than a model was trained on; older files write `type`. */
const ropeScaling = z
  .looseObject({ rope_type: z.string().optional(), type: z.string().optional() })
  .transform(({ rope_type, type, ...rest }) => ({ ...rest, rope_type: rope_type ?? type }))
  .pipe(
    z.discriminatedUnion(
      'rope_type',
      [
        z.looseObject({ rope_type: z.literal('default') }),
        z.looseObject({ rope_type: z.literal('linear'), factor: positive }),
        // It changes texts above max_position_embeddings only, and those are refused.
        z.looseObject({ rope_type: z.literal('dynamic'), factor: positive }),
        z.looseObject({
          rope_type: z.literal('llama3'),
          factor: positive,
          low_freq_factor: positive,
          high_freq_factor: positive,
          original_max_position_embeddings: width,
        }),
      ],
      'expected default, linear, dynamic or llama3; other scalings of rotary positions are not supported',
    ),
  );

/** A million positions of heads of 128. */
const MAX_ROTARY = 2 ** 27;

/** LlamaConfig */
export const llamaConfig = z
  .looseObject({
    model_type: exactly('llama', 'a LLaMA decoder'),
    vocab_size: width.default(32000),
    hidden_size: width.default(4096),
    intermediate_size: width.default(11008),
    num_hidden_layers: layerCount.default(32),
    num_attention_heads: width.default(32),
    num_key_value_heads: width.nullish(),
    hidden_act: activation.default('silu'),
    max_position_embeddings: width.default(2048),
    rms_norm_eps: positive.default(1e-6),
    rope_theta: positive.default(10000),
    rope_scaling: ropeScaling.nullish(),
    head_dim: width.nullish(),
    tie_word_embeddings: flag(false),
    attention_bias: flag(false),
    mlp_bias: flag(false),
    bos_token_id: id.nullish().transform((value) => value ?? 1),
    eos_token_id: ids.transform((list) => (list.length > 0 ? list : [2])),
    pad_token_id: id.nullish(),
  })
  .superRefine(headsDivideWidth)
  .transform((config) => ({ ...config, num_key_value_heads: config.num_key_value_heads ?? config.num_attention_heads }))
  .refine((config) => config.num_attention_heads % config.num_key_value_heads === 0, {
    path: ['num_key_value_heads'],
    message: 'must divide num_attention_heads',
  })
  .refine((config) => (config.hidden_size / config.num_attention_heads) % 2 === 0, {
    path: ['num_attention_heads'],
    message: 'hidden_size / num_attention_heads must be even: rotary positions turn pairs of numbers',
  })
  .refine((config) => (config.max_position_embeddings * config.hidden_size) / config.num_attention_heads <= MAX_ROTARY, {
    path: ['max_position_embeddings'],
    message: `rotary positions of that many tokens and heads that wide take more than ${MAX_ROTARY} numbers`,
  })
  .refine(
    (config) =>
      (config.head_dim ?? config.hidden_size / config.num_attention_heads) * config.num_attention_heads === config.hidden_size,
    {
      path: ['head_dim'],
      message: 'only hidden_size / num_attention_heads is supported',
    },
  );
export type LlamaConfig = z.output<typeof llamaConfig>;

/** CLIPVisionConfig */
export const clipVisionConfig = z
  .looseObject({
    model_type: exactly('clip_vision_model', 'a CLIP image encoder'),
    hidden_size: width.default(768),
    intermediate_size: width.default(3072),
    num_hidden_layers: layerCount.default(12),
    num_attention_heads: width.default(12),
    num_channels: exactly(3, 'red, green, blue'),
    image_size: width.default(224),
    patch_size: width.default(32),
    hidden_act: activation.default('quick_gelu'),
    layer_norm_eps: positive.default(1e-5),
  })
  .superRefine(headsDivideWidth)
  .superRefine(holdsAPatch);
export type ClipVisionConfig = z.output<typeof clipVisionConfig>;

/** LlavaConfig; without vision_config it means CLIP ViT-L/14 at 336 pixels */
export const llavaConfig = z
  .looseObject({
    model_type: z.literal('llava', 'expected "llava"'),
    image_token_index: id.default(32000),
    pad_token_id: id.nullish(),
    projector_hidden_act: activation.default('gelu'),
    vision_feature_layer: z.int('expected the number of one layer').default(-2),
    vision_feature_select_strategy: z.enum(['default', 'full'], 'expected "default" or "full"').default('default'),
    text_config: llamaConfig.prefault({}),
    vision_config: clipVisionConfig.prefault({
      hidden_size: 1024,
      intermediate_size: 4096,
      num_hidden_layers: 24,
      num_attention_heads: 16,
      image_size: 336,
      patch_size: 14,
    }),
  })
  .superRefine(({ vision_feature_layer: layer, vision_config: { num_hidden_layers: layers } }, context) => {
    if (layer > layers || layer < -layers - 1)
      context.addIssue({
        code: 'custom',
        path: ['vision_feature_layer'],
        message: `expected ${-layers - 1} to ${layers}: the image encoder has ${layers} layers, but it is ${layer}`,
      });
  });
export type LlavaConfig = z.output<typeof llavaConfig>;

/** Blip2VisionConfig: EVA ViT-g */
export const blip2VisionConfig = z
  .looseObject({
    model_type: exactly('blip_2_vision_model', 'an EVA image encoder'),
    hidden_size: width.default(1408),
    intermediate_size: width.default(6144),
    num_hidden_layers: layerCount.default(39),
    num_attention_heads: width.default(16),
    image_size: width.default(224),
    patch_size: width.default(14),
    hidden_act: activation.default('gelu'),
    layer_norm_eps: positive.default(1e-6),
    qkv_bias: flag(true),
  })
  .superRefine(headsDivideWidth)
  .superRefine(holdsAPatch);
export type Blip2VisionConfig = z.output<typeof blip2VisionConfig>;

/** Blip2QFormerConfig */
export const qFormerConfig = z
  .looseObject({
    hidden_size: width.default(768),
    intermediate_size: width.default(3072),
    num_hidden_layers: layerCount.default(12),
    num_attention_heads: width.default(12),
    hidden_act: activation.default('gelu'),
    layer_norm_eps: positive.default(1e-12),
    position_embedding_type: exactly('absolute', 'relative positions change the attention'),
    cross_attention_frequency: width.default(2),
    encoder_hidden_size: width.default(1408),
  })
  .superRefine(headsDivideWidth);
export type QFormerConfig = z.output<typeof qFormerConfig>;

/** OPTConfig */
export const optConfig = z
  .looseObject({
    model_type: exactly('opt', 'an OPT decoder'),
    vocab_size: width.default(50272),
    hidden_size: width.default(768),
    num_hidden_layers: layerCount.default(12),
    ffn_dim: width.default(3072),
    max_position_embeddings: width.default(2048),
    do_layer_norm_before: flag(true),
    _remove_final_layer_norm: flag(false),
    word_embed_proj_dim: width.nullish(),
    num_attention_heads: width.default(12),
    activation_function: activation.default('relu'),
    enable_bias: flag(true),
    layer_norm_elementwise_affine: flag(true),
    tie_word_embeddings: flag(true),
    pad_token_id: id.default(1),
    bos_token_id: id.default(2),
    eos_token_id: ids.transform((list) => (list.length > 0 ? list : [2])),
  })
  .superRefine(headsDivideWidth)
  .transform((config) => ({ ...config, word_embed_proj_dim: config.word_embed_proj_dim ?? config.hidden_size }))
  .refine((config) => config.word_embed_proj_dim === config.hidden_size, {
    path: ['word_embed_proj_dim'],
    message: 'only hidden_size is supported: visual tokens have that width and stand beside the words',
  });
export type OptConfig = z.output<typeof optConfig>;

/** Blip2Config with a decoder-only language model */
export const blip2Config = z.looseObject({
  model_type: z.literal('blip-2', 'expected "blip-2"'),
  num_query_tokens: width.default(32),
  use_decoder_only_language_model: exactly(true, 'encoder-decoder language models are not'),
  text_config: optConfig.prefault({}),
  vision_config: blip2VisionConfig.prefault({}),
  qformer_config: qFormerConfig.prefault({}),
});
export type Blip2Config = z.output<typeof blip2Config>;

/** generation_config.json: the ids that end or frame a generated text */
export const generationConfig = z.looseObject({
  bos_token_id: id.nullish(),
  eos_token_id: ids,
  pad_token_id: id.nullish(),
});
export type GenerationConfig = z.output<typeof generationConfig>;

const length = z.union(
  [width.transform((n) => ({ height: n, width: n })), z.looseObject({ height: width, width: width })],
  'expected a size: a number, or {height, width}',
);
const rgb = z
  .array(z.number())
  .length(3, 'expected three numbers, one per colour')
  .transform((list) => list as [number, number, number]);

/** preprocessor_config.json of CLIP and BLIP image processors */
export const preprocessorConfig = z.looseObject({
  image_processor_type: z
    .string()
    .regex(
      /^(CLIP|Blip)(ImageProcessor(Fast)?|FeatureExtractor)$/,
      'only CLIPImageProcessor and BlipImageProcessor are supported',
    )
    .nullish(),
  do_resize: flag(true),
  /** one number means the shortest edge for CLIP and a square for BLIP; transformers keeps it under `size` too */
  size: z
    .union(
      [width, z.looseObject({ shortest_edge: width }), z.looseObject({ height: width, width: width })],
      'expected a size: {shortest_edge}, {height, width} or a number',
    )
    .nullish(),
  /** PIL's codes */
  resample: z.union([z.literal(1), z.literal(2), z.literal(3)], 'expected 1 (Lanczos), 2 (bilinear) or 3 (bicubic)').default(3),
  do_center_crop: z.boolean('expected true or false').optional(),
  crop_size: length.optional(),
  do_rescale: flag(true),
  rescale_factor: positive.default(1 / 255),
  do_normalize: flag(true),
  image_mean: rgb.default([0.48145466, 0.4578275, 0.40821073]),
  image_std: rgb.default([0.26862954, 0.26130258, 0.27577711]),
});
export type PreprocessorConfig = z.output<typeof preprocessorConfig>;
