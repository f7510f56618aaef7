/** config.json of a LLaMA decoder and of those that are options of it, with the defaults of transformers' LlamaConfig, Qwen2Config and others. */
import { z } from 'zod';
import { activation, exactly, flag, headsDivideWidth, id, ids, layerCount, positive, width } from '../../files/config.ts';
import { byModelType } from './layout.ts';
import { gatherRope, ropeFields, ropeOf, sectionFields } from './rope.ts';

/**
 * Longest text of a decoder that could read longer ones: its tables of positions, which every program holds, have at most this many numbers.
 * 32,768 tokens of heads of 128.
 */
const TABLE = 2 ** 22;
/** Texts of this length are always read, by heads that are not too wide for it. */
const LEAST_POSITIONS = 8192;
const MAX_TABLE = 2 ** 23;

/** Longest text that is read, of what a decoder could read. @param headWidth of the tables */
export const longestText = (positions: number, headWidth: number): number =>
  Math.min(positions, Math.max(LEAST_POSITIONS, Math.floor(TABLE / headWidth)));

/** What decoders of one kind have of their own. */
interface Kind {
  readonly type: string;
  readonly title: string;
  /** of fields that a file may leave out */
  readonly defaults: {
    readonly vocab_size: number;
    readonly hidden_size: number;
    readonly intermediate_size: number;
    readonly num_hidden_layers: number;
    readonly num_attention_heads: number;
    readonly num_key_value_heads?: number;
    readonly head_dim?: number;
    readonly max_position_embeddings: number;
    readonly rms_norm_eps: number;
    readonly rope_theta: number;
    readonly bos_token_id?: number;
    readonly eos_token_id: readonly number[];
  };
  /** biases of queries, keys and values, and of no other projection */
  readonly qkvBias?: boolean;
  /** queries and keys are normalised */
  readonly qkNorm?: boolean;
  /** every layer sees a window of this many tokens, unless a file says otherwise: texts are read up to it */
  readonly window?: number;
  /** positions have three axes: how pairs are shared out, and the sections of a file that does not say them */
  readonly sections?: { readonly interleaved: boolean; readonly otherwise?: readonly [number, number, number] };
}

/** The configuration of a decoder that is an option of llama.ts. */
const decoderConfig = ({ type, title, defaults, qkvBias, qkNorm, window, sections }: Kind) =>
  z.preprocess(
    gatherRope(defaults, sections !== undefined),
    z
      .looseObject({
        model_type: exactly(type, title),
        vocab_size: width.default(defaults.vocab_size),
        hidden_size: width.default(defaults.hidden_size),
        intermediate_size: width.default(defaults.intermediate_size),
        num_hidden_layers: layerCount.default(defaults.num_hidden_layers),
        num_attention_heads: width.default(defaults.num_attention_heads),
        num_key_value_heads: width.nullish().transform((value) => value ?? defaults.num_key_value_heads),
        hidden_act: activation.default('silu'),
        max_position_embeddings: width.default(defaults.max_position_embeddings),
        rms_norm_eps: positive.default(defaults.rms_norm_eps),
        ...ropeFields,
        rope_theta: positive.default(defaults.rope_theta),
        ...sectionFields,
        head_dim: width.nullish().transform((value) => value ?? defaults.head_dim),
        tie_word_embeddings: flag(false),
        attention_bias: flag(false),
        mlp_bias: flag(false),
        bos_token_id: id.nullish().transform((value) => value ?? defaults.bos_token_id),
        eos_token_id: ids.transform((list) => (list.length > 0 ? list : [...defaults.eos_token_id])),
        pad_token_id: id.nullish(),
        use_sliding_window: exactly(false, 'layers that see a window of the text are not computed in this decoder'),
        sliding_window: width.nullish(),
        layer_types: z
          .array(
            z.literal(
              'full_attention',
              'only "full_attention" is supported: layers that see a window are not computed in this decoder',
            ),
          )
          .nullish(),
      })
      .superRefine((config, context) => {
        if (config.head_dim == null) headsDivideWidth(config, context);
      })
      .transform((config) => ({ ...config, head_dim: config.head_dim ?? config.hidden_size / config.num_attention_heads }))
      .transform((config) => {
        const { rope_parameters: _, mrope_section: section = sections?.otherwise, ...rest } = config;
        const scaling = ropeOf(config);
        return {
          ...rest,
          ...(qkvBias === undefined ? {} : { qkv_bias: qkvBias }),
          ...(qkNorm === undefined ? {} : { qk_norm: qkNorm }),
          ...(sections === undefined ? {} : { rope_sections: { sections: section ?? [], interleaved: sections.interleaved } }),
          num_key_value_heads: config.num_key_value_heads ?? config.num_attention_heads,
          rope_scaling: scaling,
          max_position_embeddings: Math.min(
            longestText(config.max_position_embeddings, config.head_dim),
            // A window that the whole text stands in hides nothing.
            window === undefined ? Number.POSITIVE_INFINITY : (config.sliding_window ?? window),
            // Longer texts would turn all their tokens by the long factors.
            scaling.rope_type === 'longrope' ? scaling.original_max_position_embeddings : Number.POSITIVE_INFINITY,
          ),
        };
      })
      .refine((config) => config.num_attention_heads % config.num_key_value_heads === 0, {
        path: ['num_key_value_heads'],
        message: 'must divide num_attention_heads',
      })
      .refine(({ head_dim }) => head_dim % 2 === 0, {
        path: ['num_attention_heads'],
        message:
          'the width of a head (head_dim, or hidden_size / num_attention_heads) must be even: rotary positions turn pairs of numbers',
      })
      .refine(
        ({ rope_scaling: scaling, head_dim }) =>
          scaling.rope_type !== 'longrope' ||
          [scaling.short_factor, scaling.long_factor].every((list) => list.length === head_dim / 2),
        { path: ['rope_parameters'], message: 'short_factor and long_factor need one number per pair of a head' },
      )
      .refine((config) => config.max_position_embeddings * config.head_dim <= MAX_TABLE, {
        path: ['max_position_embeddings'],
        message: `rotary positions of that many tokens and heads that wide take more than ${MAX_TABLE} numbers`,
      })
      .superRefine(({ head_dim, rope_sections: given }, context) => {
        if (sections === undefined || given === undefined) return;
        const pairs = given.sections.reduce((total, own) => total + own, 0);
        if (given.sections.length === 3 && (given.interleaved || pairs === head_dim / 2)) return;
        context.addIssue({
          code: 'custom',
          path: ['rope_parameters', 'mrope_section'],
          message: `expected three numbers of pairs that are ${head_dim / 2} together, half the width of a head`,
        });
      }),
  );

/** LlamaConfig */
export const llamaConfig = decoderConfig({
  type: 'llama',
  title: 'a LLaMA decoder',
  defaults: {
    ...{ vocab_size: 32000, hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 32, num_attention_heads: 32 },
    ...{ max_position_embeddings: 2048, rms_norm_eps: 1e-6, rope_theta: 10000, bos_token_id: 1, eos_token_id: [2] },
  },
});

/** MistralConfig */
const mistralConfig = decoderConfig({
  type: 'mistral',
  title: 'a Mistral decoder',
  defaults: {
    ...{ vocab_size: 32000, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32, num_attention_heads: 32 },
    ...{ num_key_value_heads: 8, max_position_embeddings: 131072, rms_norm_eps: 1e-6, rope_theta: 10000 },
    ...{ bos_token_id: 1, eos_token_id: [2] },
  },
  window: 4096,
});

/** Qwen2Config */
export const qwen2Config = decoderConfig({
  type: 'qwen2',
  title: 'a Qwen2 decoder',
  defaults: {
    ...{ vocab_size: 151936, hidden_size: 4096, intermediate_size: 22016, num_hidden_layers: 32, num_attention_heads: 32 },
    ...{ num_key_value_heads: 32, max_position_embeddings: 32768, rms_norm_eps: 1e-6, rope_theta: 10000, eos_token_id: [] },
  },
  qkvBias: true,
});

/** Qwen3Config */
export const qwen3Config = decoderConfig({
  type: 'qwen3',
  title: 'a Qwen3 decoder',
  defaults: {
    ...{ vocab_size: 151936, hidden_size: 4096, intermediate_size: 22016, num_hidden_layers: 32, num_attention_heads: 32 },
    ...{
      num_key_value_heads: 32,
      head_dim: 128,
      max_position_embeddings: 32768,
      rms_norm_eps: 1e-6,
      rope_theta: 10000,
      eos_token_id: [],
    },
  },
  qkNorm: true,
});

/** Qwen2_5_VLTextConfig */
export const qwen25VlTextConfig = decoderConfig({
  type: 'qwen2_5_vl_text',
  title: 'the decoder of a Qwen2.5-VL',
  defaults: {
    ...{ vocab_size: 152064, hidden_size: 8192, intermediate_size: 29568, num_hidden_layers: 80, num_attention_heads: 64 },
    ...{ num_key_value_heads: 8, max_position_embeddings: 32768, rms_norm_eps: 1e-5, rope_theta: 1e6, eos_token_id: [] },
  },
  qkvBias: true,
  sections: { interleaved: false },
});

/** Qwen3VLTextConfig */
export const qwen3VlTextConfig = decoderConfig({
  type: 'qwen3_vl_text',
  title: 'the decoder of a Qwen3-VL',
  defaults: {
    ...{ vocab_size: 151936, hidden_size: 4096, intermediate_size: 22016, num_hidden_layers: 32, num_attention_heads: 32 },
    ...{
      num_key_value_heads: 32,
      head_dim: 128,
      max_position_embeddings: 128000,
      rms_norm_eps: 1e-6,
      rope_theta: 5e5,
      eos_token_id: [],
    },
  },
  qkNorm: true,
  sections: { interleaved: true, otherwise: [24, 20, 20] },
});
export type LlamaConfig = z.output<typeof llamaConfig>;

const kinds = { llama: llamaConfig, mistral: mistralConfig, qwen2: qwen2Config, qwen3: qwen3Config };

/** The decoder of a family whose sizes have decoders of several kinds; the first is that of a file that does not name it. */
export const severalDecoders = <K extends keyof typeof kinds>(...own: readonly [K, ...K[]]) =>
  byModelType(Object.fromEntries(own.map((kind) => [kind, kinds[kind]])), own[0]);
