/** Models that cannot be opened, what of those that can is nearest to each, and what it has beyond that. */

interface Near {
  readonly types: RegExp;
  readonly nearest: string;
  readonly needed?: string;
}

const llava = 'LLaVA-1.5 (llava-hf/llava-1.5-7b-hf)';
const oneVision = 'LLaVA-OneVision (llava-hf/llava-onevision-qwen2-0.5b-ov-hf)';
const qwen25 = 'Qwen2.5-VL (Qwen/Qwen2.5-VL-3B-Instruct)';
const qwen3 = 'Qwen3-VL (Qwen/Qwen3-VL-2B-Instruct)';
const smol = 'SmolVLM2 (HuggingFaceTB/SmolVLM2-2.2B-Instruct)';
const gemma = 'Gemma 3 (google/gemma-3-4b-it)';
const intern = 'InternVL3 in the layout of transformers (OpenGVLab/InternVL3-1B-hf)';

/** The first that fits counts. */
const table: readonly Near[] = [
  { types: /^qwen2_vl$/, nearest: qwen25, needed: 'an image encoder with LayerNorm and without windows' },
  { types: /^qwen3.*moe|^qwen3_omni/, nearest: qwen3, needed: 'layers that choose among experts' },
  { types: /^qwen3_?(5|next)/, nearest: qwen3, needed: 'layers of linear attention with a gated delta rule' },
  { types: /^qwen2_5_omni/, nearest: qwen25, needed: 'the part that listens and speaks' },
  {
    types: /^gemma3n|^gemma4/,
    nearest: gemma,
    needed: 'embeddings in every layer, shared keys and values, and another image encoder',
  },
  { types: /^paligemma/, nearest: gemma, needed: 'the decoder of Gemma 1 or 2, and prompts that are seen in both directions' },
  { types: /^idefics2/, nearest: smol, needed: 'a resampler between image encoder and decoder, and a Mistral decoder' },
  { types: /^idefics/, nearest: smol, needed: 'a resampler and cross-attention between the layers of the decoder' },
  { types: /^internvl_chat|^intern_?vl/, nearest: intern, needed: "the names of its authors' own layout" },
  {
    types: /^llava_next|^llava_video/,
    nearest: oneVision,
    needed: 'a CLIP image encoder, and tiles without a limit on their tokens',
  },
  {
    types: /^minicpm|^glm4|^glm_|^kimi|^deepseek_vl|^ovis|^molmo|^phi/,
    nearest: qwen25,
    needed: 'its own image encoder, connector and decoder',
  },
  { types: /^mllama/, nearest: llava, needed: 'cross-attention between the layers of the decoder' },
  { types: /llava|mistral3|pixtral|aya_vision|florence/, nearest: llava, needed: 'its own image encoder, connector or decoder' },
  { types: /blip/, nearest: 'BLIP2-OPT (Salesforce/blip2-opt-2.7b)', needed: 'its own Q-Former or decoder' },
  { types: /mini-?gpt/, nearest: 'MiniGPT-4 as one folder, as `visedit convert` writes it' },
  { types: /qwen/, nearest: qwen3, needed: 'an image encoder: this is a model of texts' },
  { types: /gemma/, nearest: gemma, needed: 'an image encoder: this is a model of texts' },
  {
    types: /^(llama|mistral|mixtral|opt|gpt|phi|olmo|smollm|falcon)/,
    nearest: llava,
    needed: 'an image encoder: this is a model of texts',
  },
];

/** What is nearest to a `model_type`, and what would be needed to open it; ready to stand behind a message. */
export function nearestTo(type: string): string {
  if (type === '') return '';
  const near = table.find(({ types }) => types.test(type));
  const build = 'docs/extending/model.md says how a family is added';
  if (near === undefined) return `; ${build}`;
  const needed = near.needed === undefined ? '' : `; beyond that, this one needs ${near.needed} (${build})`;
  return `; nearest to it is ${near.nearest}${needed}`;
}
