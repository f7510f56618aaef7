/**
 * Published sizes of modern families: the configuration of each, and beside it what a folder of that size needs to be opened: its image processor, the
 * words that stand for pictures by their ids, and how a picture is written in a chat.
 */
import type { Architecture } from '../src/models/architecture.ts';
import { gemma3Config } from '../src/models/configs/gemma3.ts';
import { internVlConfig } from '../src/models/configs/internvl.ts';
import { llavaOneVisionConfig } from '../src/models/configs/llava-onevision.ts';
import { qwen3VlConfig, qwen25VlConfig } from '../src/models/configs/qwen-vl.ts';
import { smolVlmConfig } from '../src/models/configs/smolvlm.ts';
import { gemma3 } from '../src/models/gemma3.ts';
import { internVl } from '../src/models/internvl.ts';
import { llavaOneVision } from '../src/models/llava-onevision.ts';
import { qwen25Vl } from '../src/models/qwen2-5-vl.ts';
import { qwen3Vl } from '../src/models/qwen3-vl.ts';
import { smolVlm } from '../src/models/smolvlm.ts';

type Config = Readonly<Record<string, unknown>>;

export interface ModernModel {
  readonly config: Record<string, unknown>;
  readonly architecture: Architecture;
  /** preprocessor_config.json */
  readonly processor: Config;
  /** words that the tokenizer needs, by their ids */
  readonly tokens: Readonly<Record<string, number>>;
  /** a picture in a rendered chat */
  readonly picture: string;
  /** where it is published */
  readonly hub: string;
}

/** [hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, vocab_size] */
type Sizes = readonly [number, number, number, number, number, number];

const decoder = (model_type: string, [hidden, wide, layers, heads, keyHeads, vocabulary]: Sizes, more: Config = {}) => ({
  ...{ model_type, hidden_size: hidden, intermediate_size: wide, num_hidden_layers: layers },
  ...{ num_attention_heads: heads, num_key_value_heads: keyHeads, vocab_size: vocabulary, ...more },
});

const siglip400m = (image_size: number, layers = 27) => ({
  ...{ model_type: 'siglip_vision_model', hidden_size: 1152, intermediate_size: 4304, num_hidden_layers: layers },
  ...{ num_attention_heads: 16, image_size, patch_size: 14 },
});

const half = [0.5, 0.5, 0.5];
const squares = (size: number) => ({ height: size, width: size });

function qwen3(hub: string, text: Sizes, tied: boolean, tower: Config): ModernModel {
  const rope_scaling = { rope_type: 'default', mrope_interleaved: true, mrope_section: [24, 20, 20] };
  const more = { head_dim: 128, max_position_embeddings: 262144, rms_norm_eps: 1e-6, rope_theta: 5e6, rope_scaling };
  const config = {
    ...{ architectures: ['Qwen3VLForConditionalGeneration'], model_type: 'qwen3_vl', image_token_id: 151655 },
    tie_word_embeddings: tied,
    text_config: decoder('qwen3_vl_text', text, { ...more, tie_word_embeddings: tied }),
    vision_config: { model_type: 'qwen3_vl', ...tower, out_hidden_size: text[0] },
  };
  const processor = {
    ...{ image_processor_type: 'Qwen2VLImageProcessorFast', patch_size: 16, merge_size: 2, temporal_patch_size: 2 },
    ...{ image_mean: half, image_std: half, size: { shortest_edge: 65536, longest_edge: 16777216 } },
  };
  return { hub, config, architecture: qwen3Vl(qwen3VlConfig.parse(config)), processor, ...qwenPictures };
}

const qwenPictures = {
  tokens: { '<|vision_start|>': 151652, '<|vision_end|>': 151653, '<|image_pad|>': 151655 },
  picture: '<|vision_start|><|image_pad|><|vision_end|>',
};

function qwen25(hub: string, text: Sizes, tied: boolean): ModernModel {
  const rope_scaling = { type: 'mrope', mrope_section: [16, 24, 24] };
  const more = { max_position_embeddings: 128000, rms_norm_eps: 1e-6, rope_theta: 1e6, rope_scaling, use_sliding_window: false };
  const config = {
    ...{ architectures: ['Qwen2_5_VLForConditionalGeneration'], image_token_id: 151655, tie_word_embeddings: tied },
    ...decoder('qwen2_5_vl', text, more),
    vision_config: { model_type: 'qwen2_5_vl', hidden_size: 1280, out_hidden_size: text[0] },
  };
  const processor = {
    ...{ image_processor_type: 'Qwen2VLImageProcessor', patch_size: 14, merge_size: 2, temporal_patch_size: 2 },
    ...{ min_pixels: 3136, max_pixels: 12845056 },
  };
  return { hub, config, architecture: qwen25Vl(qwen25VlConfig.parse(config)), processor, ...qwenPictures };
}

function smol(hub: string, text: Sizes, rope_theta: number, tower: Config, scale_factor: number): ModernModel {
  const tile = tower.image_size as number;
  const places = Array.from({ length: 36 }, (_, i) => [`<row_${Math.floor(i / 6) + 1}_col_${(i % 6) + 1}>`, 49153 + i] as const);
  const config = {
    ...{ architectures: ['SmolVLMForConditionalGeneration'], model_type: 'smolvlm', image_token_id: 49190, scale_factor },
    text_config: decoder('llama', text, { head_dim: 64, max_position_embeddings: 8192, rms_norm_eps: 1e-5, rope_theta }),
    vision_config: { ...tower, model_type: 'smolvlm_vision' },
  };
  const processor = {
    ...{ image_processor_type: 'SmolVLMImageProcessor', resample: 1, image_mean: half, image_std: half },
    ...{ size: { longest_edge: 4 * tile }, max_image_size: { longest_edge: tile }, do_image_splitting: true },
  };
  const tokens = { '<global-img>': 49152, ...Object.fromEntries(places), '<fake_token_around_image>': 49189, '<image>': 49190 };
  return { hub, config, architecture: smolVlm(smolVlmConfig.parse(config)), processor, tokens, picture: '<image>' };
}

function oneVision(hub: string, text: Sizes, tied: boolean): ModernModel {
  const grid = Array.from({ length: 36 }, (_, i) => [384 * (Math.floor(i / 6) + 1), 384 * ((i % 6) + 1)]);
  const more = { max_position_embeddings: 32768, rms_norm_eps: 1e-6, rope_theta: 1e6, tie_word_embeddings: tied };
  const config = {
    ...{ architectures: ['LlavaOnevisionForConditionalGeneration'], model_type: 'llava_onevision', image_token_index: 151646 },
    ...{ tie_word_embeddings: tied, image_grid_pinpoints: grid, vision_aspect_ratio: 'anyres_max_9', vision_feature_layer: -1 },
    vision_feature_select_strategy: 'full',
    text_config: decoder('qwen2', text, more),
    vision_config: siglip400m(384, 26),
  };
  const processor = {
    ...{ image_processor_type: 'LlavaOnevisionImageProcessor', image_mean: half, image_std: half, size: squares(384) },
    image_grid_pinpoints: grid,
  };
  const architecture = llavaOneVision(llavaOneVisionConfig.parse(config));
  return { hub, config, architecture, processor, tokens: { '<image>': 151646 }, picture: '<image>\n' };
}

function intern(hub: string, text: Sizes, rope_theta: number): ModernModel {
  const more = { max_position_embeddings: 32768, rms_norm_eps: 1e-6, rope_theta, tie_word_embeddings: false };
  const config = {
    ...{ architectures: ['InternVLForConditionalGeneration'], model_type: 'internvl', image_token_id: 151667 },
    text_config: decoder('qwen2', text, more),
    vision_config: { attention_bias: true, use_absolute_position_embeddings: true, image_size: [448, 448], patch_size: [14, 14] },
  };
  const processor = {
    ...{ image_processor_type: 'GotOcr2ImageProcessor', size: squares(448), crop_to_patches: true, max_patches: 12 },
    ...{ image_mean: [0.485, 0.456, 0.406], image_std: [0.229, 0.224, 0.225] },
  };
  const tokens = { '<img>': 151665, '</img>': 151666, '<IMG_CONTEXT>': 151667 };
  return { hub, config, architecture: internVl(internVlConfig.parse(config)), processor, tokens, picture: '<IMG_CONTEXT>\n' };
}

function gemma(hub: string, text: Sizes): ModernModel {
  const rope_scaling = { factor: 8, rope_type: 'linear' };
  const config = {
    ...{ architectures: ['Gemma3ForConditionalGeneration'], model_type: 'gemma3', mm_tokens_per_image: 256 },
    ...{ boi_token_index: 255999, eoi_token_index: 256000, image_token_index: 262144 },
    text_config: decoder('gemma3_text', text, { head_dim: 256, sliding_window: 1024, rope_scaling }),
    vision_config: siglip400m(896),
  };
  const processor = {
    ...{ image_processor_type: 'Gemma3ImageProcessor', resample: 2, image_mean: half, image_std: half, size: squares(896) },
  };
  const tokens = { '<start_of_image>': 255999, '<end_of_image>': 256000, '<image_soft_token>': 262144 };
  return { hub, config, architecture: gemma3(gemma3Config.parse(config)), processor, tokens, picture: '<start_of_image>' };
}

const siglipBase = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  image_size: 512,
  patch_size: 16,
};
const qwen3Small = {
  depth: 24,
  hidden_size: 1024,
  intermediate_size: 4096,
  num_heads: 16,
  deepstack_visual_indexes: [5, 11, 17],
};

/** By name; the hubs' names are `hub`. */
export const modernShapes = {
  'smolvlm2-256m': () => smol('HuggingFaceTB/SmolVLM2-256M-Video-Instruct', [576, 1536, 30, 9, 3, 49280], 1e5, siglipBase, 4),
  'smolvlm2-500m': () => smol('HuggingFaceTB/SmolVLM2-500M-Video-Instruct', [960, 2560, 32, 15, 5, 49280], 1e5, siglipBase, 4),
  'smolvlm2-2.2b': () => smol('HuggingFaceTB/SmolVLM2-2.2B-Instruct', [2048, 8192, 24, 32, 32, 49280], 1.3e5, siglip400m(384), 3),
  'qwen2.5-vl-3b': () => qwen25('Qwen/Qwen2.5-VL-3B-Instruct', [2048, 11008, 36, 16, 2, 151936], true),
  'qwen2.5-vl-7b': () => qwen25('Qwen/Qwen2.5-VL-7B-Instruct', [3584, 18944, 28, 28, 4, 152064], false),
  'qwen3-vl-2b': () => qwen3('Qwen/Qwen3-VL-2B-Instruct', [2048, 6144, 28, 16, 8, 151936], true, qwen3Small),
  'qwen3-vl-4b': () => qwen3('Qwen/Qwen3-VL-4B-Instruct', [2560, 9728, 36, 32, 8, 151936], true, qwen3Small),
  'qwen3-vl-8b': () => qwen3('Qwen/Qwen3-VL-8B-Instruct', [4096, 12288, 36, 32, 8, 151936], false, {}),
  'llava-onevision-0.5b': () => oneVision('llava-hf/llava-onevision-qwen2-0.5b-ov-hf', [896, 4864, 24, 14, 2, 152000], true),
  'llava-onevision-7b': () => oneVision('llava-hf/llava-onevision-qwen2-7b-ov-hf', [3584, 18944, 28, 28, 4, 152128], false),
  'gemma-3-4b': () => gemma('google/gemma-3-4b-it', [2560, 10240, 34, 8, 4, 262208]),
  'internvl3-1b': () => intern('OpenGVLab/InternVL3-1B-hf', [896, 4864, 24, 14, 2, 151674], 1e6),
  'internvl3-2b': () => intern('OpenGVLab/InternVL3-2B-hf', [1536, 8960, 28, 12, 2, 151674], 1e6),
  'internvl3-8b': () => intern('OpenGVLab/InternVL3-8B-hf', [3584, 18944, 28, 28, 4, 151674], 1e6),
} satisfies Readonly<Record<string, () => ModernModel>>;
