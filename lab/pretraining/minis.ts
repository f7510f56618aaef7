/** The built-in minis, one line each: their configuration as published, and which of their weights each stage trains. */

import type { Tensor } from '../../src/graph/dtype.ts';
import type { Architecture } from '../../src/models/architecture.ts';
import type { TokenizerOptions } from '../world/vocabulary.ts';
import { miniBlip2Opt } from './minis/blip2-opt.ts';
import { miniLlava } from './minis/llava.ts';
import { miniMiniGpt4 } from './minis/minigpt4.ts';
import { miniQwen3Vl } from './minis/qwen3-vl.ts';
import type { ScenePictures } from './pictures.ts';
import type { DecoderStage } from './stages.ts';
import type { VisionStage } from './vision.ts';

/** What a mini takes over from another: a weight of that one gives weights of this one, or none. */
export interface Part {
  readonly model: string;
  readonly take: (name: string, weight: Tensor<'float32'>) => readonly (readonly [string, Tensor<'float32'>])[];
}

export interface Mini {
  name: string;
  /** config.json */
  config: Record<string, unknown>;
  /** preprocessor_config.json */
  preprocessor: Record<string, unknown>;
  architecture: Architecture;
  /** the token before every text; null: none */
  bos: '<s>' | '</s>' | null;
  /** what its tokenizer has of its own */
  tokenizer?: Omit<TokenizerOptions, 'bos'>;
  /** chat_template.jinja */
  chatTemplate?: string;
  /** scenes as its pictures; absent: all have the architecture's one size */
  pictures?: ScenePictures;
  /** of stage 1, other than usual */
  vision?: Partial<VisionStage>;
  /** text-only facts are learned without that token */
  bareFacts?: boolean;
  /** what decoder and connector learn, stage by stage; a stage may have one decoder layer more than the one before */
  lessons: readonly { readonly name: string; readonly layers: number; readonly settings: DecoderStage }[];
  /** the same with another number of decoder layers */
  withLayers: (layers: number) => Mini;
  /** prefix of the names of the decoder's layers */
  decoderLayer: string;
  /** built-in minis whose weights this one begins with; absent: it learns from nothing */
  parts?: readonly Part[];
  /** width of the vision features */
  visionWidth: number;
  /** weights of the tower, trained in stage 1 and frozen after */
  isVision: (name: string) => boolean;
  /** the W_Q that a W_K starts near */
  mimetic: (name: string) => string | undefined;
  /** the weight [1, q, d] of query tokens, of the width of the vision features: each starts as the mean feature at its home on the picture */
  queryTokens?: string;
  /** weights that write into the decoder's residual stream, and its last norm: what rescaling the stream touches */
  writesResidual: (name: string) => boolean;
  isFinalNorm: (name: string) => boolean;
  /** the mini with another epsilon of the decoder's norms */
  withEpsilon: (factor: number) => Mini;
}

export const minis: Readonly<Record<string, () => Mini>> = {
  'mini-llava': () => miniLlava(),
  'mini-blip2-opt': () => miniBlip2Opt(),
  'mini-minigpt4': () => miniMiniGpt4(),
  'mini-qwen3-vl': () => miniQwen3Vl(),
};
