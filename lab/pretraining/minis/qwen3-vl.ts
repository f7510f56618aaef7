/**
 * mini-qwen3-vl: an image encoder for pictures of any size whose layers feed the decoder's first ones (DeepStack), Qwen3 with three position axes. A
 * visual token is 18 x 18 pixels: 16 of them for the world's canvas. It begins with mini-llava's decoder.
 */

import { f32 } from '../../../src/graph/dtype.ts';
import { qwen3VlConfig } from '../../../src/models/configs/qwen-vl.ts';
import { qwen3Places } from '../../../src/models/qwen3-tower.ts';
import { qwen3Vl } from '../../../src/models/qwen3-vl.ts';
import { canvas, type Shape } from '../../world/scene.ts';
import { bosId, eosId, imageId, padId, vocabulary } from '../../world/vocabulary.ts';
import type { Mini, Part } from '../minis.ts';
import { qwenPictures } from '../pictures.ts';
import { type DecoderStage, rereadStage, settleStage } from '../stages.ts';

const [patch, merge, width, d] = [9, 2, 96, 128] as const;
const marks = ['<|vision_start|>', '<|vision_end|>'] as const;

/** Half of the pictures are the world's own; cells are squares or are stretched, and have whole visual tokens. */
const shapes: readonly Shape[] = [
  [canvas, canvas],
  [canvas, 108],
  [canvas, canvas],
  [108, canvas],
  [canvas, canvas],
  [108, 108],
];

const preprocessor = {
  do_convert_rgb: true,
  do_normalize: true,
  do_rescale: true,
  do_resize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_processor_type: 'Qwen2VLImageProcessor',
  image_std: [0.5, 0.5, 0.5],
  merge_size: merge,
  patch_size: patch,
  processor_class: 'Qwen3VLProcessor',
  resample: 3,
  rescale_factor: 1 / 255,
  size: { shortest_edge: 36 * 36, longest_edge: 144 * 144 },
  temporal_patch_size: 2,
};

/** The last stage: captions and counts come last, and so do backgrounds that tell two pictures apart. */
const polish: DecoderStage = {
  ...settleStage,
  ...{ steps: 160, scenes: 12, lessons: 6, pairs: 4, pairBackgrounds: 0.6, order: 0.1, warmup: 20, hold: 0.3 },
  lessonWeights: { ...settleStage.lessonWeights, caption: 4, exists: 2 },
};

export function miniQwen3Vl(epsilon = 1e-5, layers = 7): Mini {
  const config = {
    architectures: ['Qwen3VLForConditionalGeneration'],
    image_token_id: imageId,
    model_type: 'qwen3_vl',
    text_config: {
      model_type: 'qwen3_vl_text',
      hidden_size: d,
      head_dim: 32,
      intermediate_size: 352,
      max_position_embeddings: 512,
      num_attention_heads: 4,
      num_hidden_layers: layers,
      num_key_value_heads: 4,
      rms_norm_eps: epsilon,
      rope_scaling: { mrope_interleaved: true, mrope_section: [6, 5, 5], rope_type: 'default' },
      rope_theta: 10000,
      eos_token_id: eosId,
      pad_token_id: padId,
      vocab_size: vocabulary.length + marks.length,
    },
    tie_word_embeddings: true,
    torch_dtype: 'float16',
    vision_config: {
      model_type: 'qwen3_vl',
      deepstack_visual_indexes: [0, 1],
      depth: 3,
      hidden_act: 'gelu_pytorch_tanh',
      hidden_size: width,
      in_channels: 3,
      intermediate_size: 256,
      num_heads: 4,
      num_position_embeddings: (canvas / patch) ** 2,
      out_hidden_size: d,
      patch_size: patch,
      spatial_merge_size: merge,
      temporal_patch_size: 2,
    },
    vision_end_token_id: vocabulary.length + 1,
    vision_start_token_id: vocabulary.length,
  };
  const parsed = qwen3VlConfig.parse(config);
  const { vision_config: vision, text_config: text } = parsed;
  return {
    name: 'mini-qwen3-vl',
    config,
    preprocessor,
    architecture: qwen3Vl({ ...parsed, text_config: { ...text, tie_word_embeddings: true } }),
    bos: null,
    tokenizer: { image: '<|image_pad|>', more: marks },
    chatTemplate:
      "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}",
    pictures: qwenPictures({ name: 'mini-qwen3-vl', settings: preprocessor, version: 5 }, shapes, (grid) =>
      qwen3Places(vision, grid),
    ),
    visionWidth: merge * merge * width * (1 + vision.deepstack_visual_indexes.length),
    vision: { batch: 32 },
    isVision: (name) => /^model\.visual\.(patch_embed|pos_embed|blocks)\b/.test(name),
    mimetic: (name) => (/language_model.*k_proj\.weight$/.test(name) ? name.replace('k_proj', 'q_proj') : undefined),
    writesResidual: (name) =>
      /embed_tokens\.weight$|\.(merger|deepstack_merger_list\.\d+)\.linear_fc2\.|language_model.*(o_proj|down_proj)\.weight$/.test(
        name,
      ),
    isFinalNorm: (name) => name === 'model.language_model.norm.weight',
    withEpsilon: (factor) => miniQwen3Vl(epsilon * factor, layers),
    withLayers: (n) => miniQwen3Vl(epsilon, n),
    decoderLayer: 'model.language_model.layers.',
    lessons: [
      // The decoder knows the words already: at the full rate it learns to see with the new image encoder, then the rate goes to 0.
      { name: 'decoder', layers: 7, settings: { ...rereadStage, steps: 300, hold: 1 } },
      { name: 'settle', layers: 7, settings: { ...settleStage, steps: 300, scenes: 12, lessons: 6, pairs: 3 } },
      {
        name: 'pairs',
        layers: 7,
        settings: { ...settleStage, steps: 160, scenes: 12, lessons: 6, pairs: 4, order: 0.1, warmup: 20, hold: 0.4 },
      },
      { name: 'polish', layers: 7, settings: polish },
    ],
    parts: [{ model: 'mini-llava', take: fromLlava }],
  };
}

/**
 * LLaVA's language model under Qwen3's names. Its queries and keys are as long as their weights make them; here each is normalised, and the norm's
 * weight gives back the usual length. The marks of a picture begin as the tokens that stand there in LLaVA's prompts.
 */
const fromLlava: Part['take'] = (name, t) => {
  if (!name.startsWith('language_model.model.')) return [];
  const own = name.replace('language_model.model.', 'model.language_model.');
  if (name.endsWith('embed_tokens.weight')) {
    const row = (id: number): Float32Array => t.data.subarray(id * d, (id + 1) * d);
    const lineBreak = vocabulary.findIndex(({ piece }) => piece === '\n');
    const data = new Float32Array(t.data.length + marks.length * d);
    data.set(t.data);
    [bosId, lineBreak].forEach((id, i) => {
      data.set(row(id), t.data.length + i * d);
    });
    return [[own, f32(data, [t.shape[0]! + marks.length, d])]];
  }
  const of = /self_attn\.(q|k)_proj\.weight$/.exec(name)?.[1];
  if (of === undefined) return [[own, t]];
  const usual = Math.sqrt(t.data.reduce((sum, x) => sum + x * x, 0) / t.shape[0]!);
  return [
    [own, t],
    [own.replace(`${of}_proj`, `${of}_norm`), f32(new Float32Array(32).fill(usual), [32])],
  ];
};
