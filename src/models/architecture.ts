/** What every vision-LLM family offers: the same interfaces for all, as functions over symbolic tensors. */

import type { Dim } from '../graph/dim.ts';
import type { Node } from '../graph/node.ts';
import type { FamilyChat } from '../input/chat/families.ts';
import type { Picture } from '../input/segments.ts';
import type { Weights } from '../nn/weights.ts';
import type { Deep } from './deep.ts';
import type { Sequence } from './sequence.ts';
import type { Sites } from './sites.ts';

/** What a layer keeps of the tokens that it has read. */
export interface KeysAndValues {
  readonly key: Node;
  readonly value: Node;
}

/** What a decoder layer is given beside its input. */
export interface LayerContext {
  weights: Weights;
  sites: Sites;
  /** int64 [b, l]; [axes, b, l] where the decoder has several position axes */
  positions: Node;
  /** additive attention biases [b, kinds, l, p + l], of which `biasOf` is a layer's: 0 where a query may look, very negative elsewhere */
  bias: Node;
  /** runs of positions for `attend`, where the bias is causal */
  blocks?: readonly Dim[];
  /** what is added to the outputs of layers before the next one reads them: see deep.ts */
  deep?: Deep | undefined;
  /** keys and values of earlier tokens, in runs that follow each other: [b, h, p, k] each */
  past?: (layer: number) => readonly KeysAndValues[];
}

/** What a token sees where that is not all that stands before it, and itself. Such decoders have positions 0, 1, 2, … */
export interface Sight {
  /** of each layer: how many tokens one sees, itself and those before it; Infinity: all */
  readonly windows: readonly number[];
  /** whether tokens of one picture see each other in both directions */
  readonly wholePictures: boolean;
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
  /** axes of a position: 1 when left out, 3 with M-RoPE */
  readonly positionAxes?: number;
  /** absent: every token sees all that stands before it, and itself */
  readonly sight?: Sight;
  /** the first layers behind which features of the image encoder are added; 0 when left out. A visual token has a part for each: see deep.ts */
  readonly deepLayers?: number;
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
  /** what is added to the residual stream of the attention module's output, where that is not the output itself */
  afterAttention?(index: number, output: Node, weights: Weights): Node;
  /** queries, keys, values of one layer from the attention module's input, heads split and positions applied: [b, h, l, k] */
  project(index: number, input: Node, positions: Node, weights: Weights): { query: Node; key: Node; value: Node };
  /** whether keys pass a norm, so that they are not linear in the attention module's input */
  readonly normsKeys?: boolean;
  /** factor of the scores */
  readonly scale: number;
  /** the output projection of one layer's attention, [.., h k] -> [.., d] */
  output(index: number, x: Node, weights: Weights): Node;
  /** the last projection of one layer's MLP, [.., wide] -> [.., d]: what it makes of its neurons' activations, the site `layers.{i}.mlp.neurons` */
  down(index: number, x: Node, weights: Weights): Node;
}

/** A prompt's part before it is tokenised. */
export type PromptPart = { readonly text: string } | { readonly picture: Picture };

/** A token id, or a run of visual tokens of one of the prompt's pictures, counted from 0. */
export type LaidToken = number | { readonly picture: number; readonly run: number };

/** Pictures of which all have the same size and the same number of visual tokens. */
export interface FixedPictures {
  /** visual tokens */
  readonly count: number;
  /** rows and columns of image patches that heat maps are drawn on */
  readonly grid: readonly [number, number];
  /** height and width of the pixels */
  readonly size: readonly [number, number];
}

/** A vision-LLM as functions over symbolic tensors. See docs/extending/model.md. */
export interface Architecture {
  /** of the family, such as `llava` */
  readonly name: string;
  readonly decoder: Decoder;
  /** given where all pictures have one size and one number of visual tokens */
  readonly fixed?: FixedPictures;
  /** visual tokens of a usual picture, for estimates of memory, where pictures are not fixed */
  readonly usualTokens?: number;
  /** whether the encoder's `pixels` are [b, tiles, 3, s, s], each tile read by itself up to `vision.features`, where tiles follow each other */
  readonly tiled?: boolean;
  /** whether a picture is read in another way where the prompt has several */
  readonly readsTogether?: boolean;
  /** site [b, v, patches] of each visual token's attention to the patches; absent where the visual tokens are the patches */
  readonly patchMap?: string;
  /** the text that stands for a picture in a bare prompt, such as `<image>`; absent where there is none */
  placeholder?(codec: TextCodec): string;
  /** what stands between the picture and a bare prompt that does not say where its picture is */
  readonly afterPicture: string;
  /** how its folders chat; absent: by their own template, in which `placeholder` stands for a picture */
  readonly chat?: FamilyChat;
  /**
   * Tokens of a prompt in their order, special tokens included.
   * @throws Error when the family takes no picture at that place, or not as many
   */
  layout(parts: readonly PromptPart[], codec: TextCodec): LaidToken[];
  /** positions of an input where they are not 0, 1, 2, …: see `Sequence` */
  positions?(sequence: Pick<Sequence, 'ids' | 'pictures' | 'spans'>): Pick<Sequence, 'positions' | 'positionDelta'>;
  /** inputs of the image encoder for pictures of equal shapes; the first axis of each is `b` */
  pixels(): Readonly<Record<string, Node>>;
  /** -> visual tokens in the decoder's space [b, v, d], or [b, v, d (1 + deepLayers)]; declares the sites `vision.features` and `visual` */
  vision(pixels: Readonly<Record<string, Node>>, weights: Weights, sites: Sites): Node;
}

/** Visual tokens of a usual picture: exact for fixed pictures, an estimate otherwise. */
export const usualTokens = ({ fixed, usualTokens: usual = 256 }: Architecture): number => fixed?.count ?? usual;

/** What `Architecture.layout` and answers need of a tokenizer. */
export interface TextCodec {
  encode(text: string, options?: { special?: boolean }): number[];
  decode(ids: readonly number[], options?: { skipSpecial?: boolean }): string;
  /** UTF-8 bytes of a token that may be a part of a character; undefined: `decode` says its whole text */
  bytesOf?(id: number): Uint8Array | undefined;
}
