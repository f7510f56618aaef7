/** The families that can be opened, one line each, by the `model_type` of config.json. */

import { blip2Family } from './blip2-opt.ts';
import { gemma3Family } from './gemma3.ts';
import { internVlFamily } from './internvl.ts';
import { llavaFamily } from './llava.ts';
import { llavaOneVisionFamily } from './llava-onevision.ts';
import { miniGpt4Family } from './minigpt4.ts';
import { qwen25VlFamily } from './qwen2-5-vl.ts';
import { qwen3VlFamily } from './qwen3-vl.ts';
import { smolVlmFamily } from './smolvlm.ts';

export const families = {
  llava: llavaFamily,
  'blip-2': blip2Family,
  minigpt4: miniGpt4Family,
  smolvlm: smolVlmFamily,
  idefics3: smolVlmFamily,
  qwen2_5_vl: qwen25VlFamily,
  qwen3_vl: qwen3VlFamily,
  internvl: internVlFamily,
  gemma3: gemma3Family,
  llava_onevision: llavaOneVisionFamily,
} as const;
