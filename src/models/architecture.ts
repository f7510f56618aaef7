/** What every vision-LLM backbone offers: the same interfaces for LLaVA, BLIP2-OPT and MiniGPT-4, as functions over symbolic tensors. */

import type { Dim } from '../graph/dim.ts';
import type { Node } from '../graph/node.ts';
import type { Weights } from '../nn/weights.ts';
import type { Sites } from './sites.ts';

export interface KeysAndValues {
  readonly key: Node;
  readonly value: Node;
}

export interface LayerContext {
  weights: Weights;
  sites: Sites;
  /** int64 [b, l] */
  positions: Node;
  /** additive attention bias [b, 1, l, p + l]: 0 where a query may look, very negative elsewhere */
  bias: Node;
  /** runs of positions for `attend`, where the bias is causal */
  blocks?: readonly Dim[];
  /** keys and values of earlier tokens, in runs that follow each other: [b, h, p, k] each */
  past?: (layer: number) => readonly KeysAndValues[];
}

/** A decoder-only language model. */
export interface Decoder {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  /** heads of keys and values */
  readonly keyHeads: number;
  readonly headWidth: number;
  readonly vocabulary: number;
  readonly maxPositions: number;
  /** token ids int64 [b, t] -> [b, t, d] */
  embed(ids: Node, weights: Weights): Node;
  /** embeddings [b, l, d] -> h[0] */
  enter(embeddings: Node, positions: Node, weights: Weights): Node;
  /** h[i-1] -> h[i]; declares the layer's sites, and `layers.{i}.attn.key`, `.value` [b, h, l, k] of its own tokens */
  layer(index: number, x: Node, context: LayerContext): Node;
  /** normalised hidden states -> logits [.., n] = norm(x) W_V */
  head(x: Node, weights: Weights): Node;
  /** the attention module alone on its own input, for attribution (Eq. 7) */
  attention(index: number, input: Node, context: LayerContext): Node;
  /** queries, keys, values of one layer from the attention module's input, heads split and positions applied: [b, h, l, k] */
  project(index: number, input: Node, positions: Node, weights: Weights): { query: Node; key: Node; value: Node };
  /** factor of the scores */
  readonly scale: number;
  /** the output projection of one layer's attention, [.., h k] -> [.., d] */
  output(index: number, x: Node, weights: Weights): Node;
}

/** A prompt laid out: token segments around the picture. */
export interface PromptLayout {
  before: number[];
  after: number[];
}

/** A vision-LLM as functions over symbolic tensors. See docs/extending/model.md. */
export interface Architecture {
  /** of the family, such as `llava` */
  readonly name: string;
  readonly decoder: Decoder;
  readonly visualTokens: number;
  /** side of the square of image patches that the heat maps are drawn on */
  readonly patchGrid: [number, number];
  readonly imageSize: [number, number];
  /** site [b, v, patches] of each visual token's attention to the patches; absent where the visual tokens are the patches */
  readonly patchMap?: string;
  /** tokens of a text, split at the picture where there is one; special tokens included */
  layout(text: string, image: boolean, codec: TextCodec): PromptLayout;
  /** pixel values [b, 3, H, W] -> visual tokens in the decoder's space [b, v, d]; declares the site `visual` */
  vision(pixels: Node, weights: Weights, sites: Sites): Node;
}

/** What `Architecture.layout` and answers need of a tokenizer. */
export interface TextCodec {
  encode(text: string, options?: { special?: boolean }): number[];
  decode(ids: readonly number[], options?: { skipSpecial?: boolean }): string;
  /** UTF-8 bytes of a token that may be a part of a character; undefined: `decode` says its whole text */
  bytesOf?(id: number): Uint8Array | undefined;
}
