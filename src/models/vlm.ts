/**
 * A vision-LLM ready to run: an architecture, its weights, tokenizer and image processor. Programs (vision, decoder segments, one decode
 * step) are compiled when first asked for and kept. Visual tokens are computed once per picture.
 */

import { createHash } from 'node:crypto';
import { mulDim } from '../graph/dim.ts';
import {
  concat,
  f32,
  gather,
  i64,
  input,
  type Node,
  nameOf,
  pad,
  parameterOp,
  reshape,
  slice,
  type Tensor,
  topological,
} from '../graph/index.ts';
import { causalBlocks } from '../nn/layers.ts';
import { Weights } from '../nn/weights.ts';
import type { WeightSource } from '../onnx/emit.ts';
import type { CompileOptions, Engine, Feeds, Program } from '../runtime/program.ts';
import type { Architecture, TextCodec } from './architecture.ts';
import { checkFinite } from './finite.ts';
import { runLayered } from './layered.ts';
import type { MemoryEstimate } from './memory.ts';
import { layout, type Sequence } from './sequence.ts';
import type { SharedStates } from './shared-states.ts';
import { type Patch, Sites } from './sites.ts';
import { splitLayer, splitStates } from './split.ts';
import type { TokenRules } from './token-rules.ts';

/** An 8-bit RGB picture. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/**
 * A rewrite of the model's program: functions at named sites, functions of named weights, and the tensors they read.
 * `key` names the structure (not the tensors), so that equal structures share one compiled program.
 */
export interface Rewrite {
  readonly key: string;
  /** @param image whether the program's inputs have pictures */
  patches(image: boolean): ReadonlyMap<string, Patch>;
  /** patches that act on generated tokens too, one at a time; absent: activation patches act where the prompt is read */
  steps?(): ReadonlyMap<string, Patch>;
  readonly replace: ReadonlyMap<string, (weight: Node) => Node>;
  readonly feeds: Feeds;
}

/** A decoder segment: layers [from, to) and what to read. */
export interface Segment {
  /** 0 starts at the token ids and visual tokens; i starts at h[i], the output of layer i − 1 */
  from: number;
  /** layers before `to` run */
  to: number;
  image: boolean;
  /** sites to return; `logits` runs the head, on chosen rows when `rows` are given at run time */
  outputs: readonly string[];
  /** logits only at rows given by the input `rows` (flat positions in [b * l], after the picture where there is one) */
  rows?: boolean;
}

/** Right-padded inputs of one batch; all have a picture or none has. */
export interface BatchShape {
  readonly sequences: readonly Sequence[];
  /** of the longest */
  readonly length: number;
  readonly image: boolean;
}

/** Inputs of one run of the decoder, right-padded to [b, l], with the tensors that programs read. */
export interface Batch extends BatchShape {
  readonly feeds: Feeds;
}

export const MASKED = -1e9;

/** How to compile a program that reads these weights. */
export type LayerOptions = (weights: readonly string[]) => CompileOptions;

export interface VlmParts {
  name: string;
  architecture: Architecture;
  /** makes its programs */
  engine: Engine;
  weights: WeightSource;
  codec: TextCodec;
  /** picture -> pixel values [3, H, W] */
  processor: (image: RgbImage) => Tensor<'float32'>;
  eosIds: readonly number[];
  /** what changes the choice of tokens beside the model's scores */
  rules?: TokenRules | undefined;
  /** hash of the weights: edits and adapters name the model they belong to */
  fingerprint: () => string;
  /** which weight holds a value that is not a finite number, if one does */
  notFinite?: () => string | undefined;
  /** of programs of many layers */
  compileOptions?: CompileOptions;
  /** given: the decoder runs as one program per layer, with these options for the weights that it reads */
  layered?: LayerOptions | undefined;
  memory?: MemoryEstimate;
  /** bytes of private memory that may be used */
  memoryBudget?: number;
  /** inputs that a batch may have */
  batchLimit?: number;
}

/** A vision-LLM ready to run: its architecture, weights, tokenizer and image processor, with the programs it was asked for. */
export class Vlm {
  readonly name: string;
  readonly architecture: Architecture;
  readonly engine: Engine;
  readonly codec: TextCodec;
  readonly weights: WeightSource;
  readonly processor: VlmParts['processor'];
  readonly eosIds: readonly number[];
  readonly rules: TokenRules | undefined;
  readonly compileOptions: CompileOptions;
  readonly layered: LayerOptions | undefined;
  readonly memory: MemoryEstimate | undefined;
  readonly memoryBudget: number;
  readonly batchLimit: number;
  readonly #fingerprint: () => string;
  readonly #notFinite: VlmParts['notFinite'];
  readonly #programs = new Map<string, Promise<Program>>();
  readonly #visual = new Map<string, Promise<Tensor<'float32'>>>();
  /** shared states by layer: see shared-states.ts */
  readonly states = new Map<number, SharedStates>();

  constructor(parts: VlmParts) {
    this.name = parts.name;
    this.architecture = parts.architecture;
    this.engine = parts.engine;
    this.codec = parts.codec;
    this.weights = parts.weights;
    this.processor = parts.processor;
    this.eosIds = parts.eosIds;
    this.rules = parts.rules;
    this.compileOptions = parts.compileOptions ?? {};
    this.layered = parts.layered;
    this.memory = parts.memory;
    this.memoryBudget = parts.memoryBudget ?? Number.POSITIVE_INFINITY;
    this.batchLimit = parts.batchLimit ?? Number.POSITIVE_INFINITY;
    this.#fingerprint = parts.fingerprint;
    this.#notFinite = parts.notFinite;
  }

  get fingerprint(): string {
    return this.#fingerprint();
  }

  get decoder(): Architecture['decoder'] {
    return this.architecture.decoder;
  }

  /** Prompt (and target) as the decoder's input; see sequence.ts. */
  layout(prompt: string, image: boolean, target?: string): Sequence {
    return layout(this.architecture, this.codec, prompt, image, target);
  }

  /** A compiled program, built once per key. */
  program(key: string, build: () => Record<string, Node>, kind: 'whole' | 'layered' = 'whole'): Promise<Program> {
    let program = this.#programs.get(key);
    if (program === undefined) {
      const outputs = build();
      const options = kind === 'layered' ? this.layered?.(parametersOf(outputs)) : undefined;
      const afterRun = (given: Readonly<Record<string, Tensor>>): void =>
        checkFinite(given, this.name, () => this.#notFinite?.());
      program = this.engine.compile(outputs, { ...(options ?? this.compileOptions), weights: this.weights, afterRun });
      this.#programs.set(key, program);
      // What failed is tried again, and is not there to be released.
      program.catch(() => this.#programs.delete(key));
    }
    return program;
  }

  /** Forgets what was computed of pictures; programs stay. */
  forget(): void {
    this.#visual.clear();
    this.states.clear();
  }

  /** Releases programs and cached features. */
  async release(): Promise<void> {
    for (const program of this.#programs.values()) await (await program).release();
    this.#programs.clear();
    this.forget();
  }

  /** Hash of a picture's content. */
  imageKey(image: RgbImage): string {
    let key = this.#imageKeys.get(image);
    if (key === undefined) {
      key = createHash('sha256').update(`${image.width}x${image.height}`).update(image.data).digest('base64');
      this.#imageKeys.set(image, key);
    }
    return key;
  }
  readonly #imageKeys = new WeakMap<RgbImage, string>();

  /** Visual tokens [v, d] of a picture, computed once per content. */
  visual(image: RgbImage): Promise<Tensor<'float32'>> {
    const key = this.imageKey(image);
    let tokens = this.#visual.get(key);
    if (tokens === undefined) {
      tokens = this.visualOf(this.processor(image));
      this.#visual.set(key, tokens);
      tokens.catch(() => this.#visual.delete(key));
      // A bound, oldest first: features of a long evaluation must not pile up.
      if (this.#visual.size > 4096) this.#visual.delete(this.#visual.keys().next().value as string);
    }
    return tokens;
  }

  /** Visual tokens [v, d] of pixel values [3, H, W]. */
  async visualOf(pixels: Tensor<'float32'>): Promise<Tensor<'float32'>> {
    const { visualTokens, decoder } = this.architecture;
    const out = await this.visualBatch({ ...pixels, shape: [1, ...pixels.shape] });
    return f32(out.data, [visualTokens, decoder.hidden]);
  }

  /** Visual tokens [b, v, d] of pixel values [b, 3, H, W]. */
  async visualBatch(pixels: Tensor<'float32'>): Promise<Tensor<'float32'>> {
    const { imageSize } = this.architecture;
    const program = await this.program('vision', () => {
      const x = input('pixels', ['b', 3, ...imageSize]);
      return { visual: this.architecture.vision(x, new Weights(), new Sites()) };
    });
    return (await program.run({ pixels })).visual as Tensor<'float32'>;
  }

  /** The program of a decoder segment, edited by a rewrite. */
  segment(segment: Segment, rewrite?: Rewrite): Promise<Program> {
    const key = `segment|${segment.from}|${segment.to}|${segment.image}|${segment.outputs.join()}|${segment.rows === true}|${rewrite?.key ?? ''}`;
    return this.program(key, () => this.#buildSegment(segment, rewrite), 'layered');
  }

  #buildSegment({ from, to, image, outputs, rows }: Segment, rewrite?: Rewrite): Record<string, Node> {
    const { decoder, visualTokens } = this.architecture;
    const weights = new Weights(rewrite?.replace);
    const sites = new Sites(rewrite?.patches(image));
    const d = decoder.hidden;
    const positions = input('positions', ['b', 'l'], 'int64');
    const bias = input('bias', ['b', 1, 'l', 'l']);
    let x: Node;
    if (from === 0) {
      const words = decoder.embed(input('ids', ['b', 'l'], 'int64'), weights);
      const start = this.visualStart;
      const embeddings = image
        ? concat(
            [slice(words, 1, 0, start), input('visual', ['b', visualTokens, d]), slice(words, 1, start + visualTokens, 'l')],
            1,
          )
        : words;
      x = sites.site('decoder.in', decoder.enter(sites.site('embeddings', embeddings), positions, weights));
    } else {
      // The site of the layer before stands at the entry, so that an edit there acts on a shared, unedited prefix.
      x = sites.site(`layers.${from - 1}.out`, input('hidden', ['b', 'l', d]));
    }
    const last = decoder.layers - 1;
    // Rows to read logits at come after the picture, so the last layer need not be finished for what is before.
    const split = rows && image && from <= last && to > last && readsText(last, outputs, rewrite);
    const pictureEnd = this.visualStart + visualTokens;
    const runs = image ? causalBlocks(pictureEnd) : [];
    const blocks = runs.length > 0 ? [...runs, 'l'] : undefined;
    for (let i = from; i < (split ? last : to); i++) x = decoder.layer(i, x, { weights, sites, positions, bias, blocks });
    if (split) {
      const context = { weights, sites: new Sites(), positions, bias, length: pictureEnd };
      const states = splitLayer(decoder, last, splitStates(x, pictureEnd), context);
      for (const [name, value] of Object.entries(states.seen)) sites.site(name, value);
      x = pad(states.text, 1, pictureEnd, 0);
    }
    const result: Record<string, Node> = {};
    for (const name of outputs) {
      if (name !== 'logits') {
        result[name] = sites.get(name);
        continue;
      }
      const flat = rows ? gather(reshape(x, [mulDim('b', 'l'), d]), input('rows', ['r'], 'int64')) : x;
      result.logits = decoder.head(flat, weights);
    }
    return result;
  }

  /** Where visual tokens begin in every input with a picture. */
  get visualStart(): number {
    this.#visualStart ??= this.architecture.layout('x', true, this.codec).before.length;
    return this.#visualStart;
  }
  #visualStart: number | undefined;

  /** Right-padded ids, positions and causal bias; visual tokens come from `images`. */
  async batch(sequences: readonly Sequence[], images: readonly (RgbImage | undefined)[]): Promise<Batch> {
    const visual = await Promise.all(images.map((image) => (image === undefined ? undefined : this.visual(image))));
    return this.batchVisual(sequences, visual);
  }

  /** Sequences as one batch, checked, without feeds. */
  batchShape(sequences: readonly Sequence[]): BatchShape {
    const first = sequences[0];
    if (first === undefined) throw new Error('a batch needs at least one sequence');
    const image = first.visualSpan !== undefined;
    sequences.forEach((s, n) => {
      if ((s.visualSpan !== undefined) !== image) throw new Error('one batch holds inputs with pictures, or inputs without');
      if (s.visualSpan !== undefined && s.visualSpan[0] !== this.visualStart) {
        throw new Error(
          `input ${n} has its picture after ${s.visualSpan[0]} tokens, but ${this.name} reads it after ${this.visualStart}; put the picture where the prompt has it by default, at the start`,
        );
      }
    });
    return { sequences, length: Math.max(...sequences.map((s) => s.ids.length)), image };
  }

  /** As `batch`, with visual tokens [v, d] given. */
  batchVisual(sequences: readonly Sequence[], visual: readonly (Tensor<'float32'> | undefined)[]): Batch {
    const { length, image } = this.batchShape(sequences);
    if (visual.some((tokens) => (tokens !== undefined) !== image))
      throw new Error('one batch holds inputs with pictures, or inputs without');
    const b = sequences.length;
    const ids = new BigInt64Array(b * length);
    const positions = new BigInt64Array(b * length);
    sequences.forEach((s, n) => {
      s.ids.forEach((id, i) => {
        ids[n * length + i] = BigInt(Math.max(id, 0));
      });
      for (let i = 0; i < length; i++) positions[n * length + i] = BigInt(i);
    });
    const feeds: Record<string, Tensor> = {
      ids: i64(ids, [b, length]),
      positions: i64(positions, [b, length]),
      bias: causalBias(b, length),
    };
    if (image) feeds.visual = stack(visual as Tensor<'float32'>[]);
    return { sequences, length, image, feeds };
  }

  /** Runs a segment over a batch; `hidden` [b, l, d] is needed when the segment does not start at the tokens. */
  async run(
    segment: Omit<Segment, 'image'>,
    batch: Batch,
    extra: Feeds = {},
    rewrite?: Rewrite,
  ): Promise<Record<string, Tensor>> {
    const all: Record<string, Tensor> = { ...batch.feeds, ...extra, ...rewrite?.feeds };
    const whole = { ...segment, image: batch.image };
    if (this.layered !== undefined) return runLayered(this, whole, all, rewrite);
    return (await this.segment(whole, rewrite)).run(all);
  }

  /** Logits at every position, [b, l, n]. */
  async logits(batch: Batch, rewrite?: Rewrite): Promise<Tensor<'float32'>> {
    const out = await this.run({ from: 0, to: this.decoder.layers, outputs: ['logits'] }, batch, {}, rewrite);
    return out.logits as Tensor<'float32'>;
  }
}

/** Whether of a layer only its keys, its values and the logits after the picture are asked for, and no rewrite acts within it. */
function readsText(layer: number, outputs: readonly string[], rewrite: Rewrite | undefined): boolean {
  const within = (site: string): boolean => site.startsWith(`layers.${layer}.`);
  const unread = outputs.filter(within).every((site) => /\.attn\.(key|value)$/.test(site));
  return outputs.includes('logits') && unread && ![...(rewrite?.patches(true).keys() ?? [])].some(within);
}

const parametersOf = (outputs: Readonly<Record<string, Node>>): string[] =>
  topological(Object.values(outputs))
    .filter((node) => node.op === parameterOp)
    .map(nameOf);

/** Causal bias [b, 1, l, l]. */
export function causalBias(b: number, length: number): Tensor<'float32'> {
  const one = new Float32Array(length * length);
  for (let i = 0; i < length; i++) one.fill(MASKED, i * length + i + 1, (i + 1) * length);
  const data = b === 1 ? one : new Float32Array(b * length * length);
  if (b > 1) for (let n = 0; n < b; n++) data.set(one, n * length * length);
  return f32(data, [b, 1, length, length]);
}

/** [..] × b -> [b, ..] */
export function stack(parts: readonly Tensor<'float32'>[]): Tensor<'float32'> {
  const first = parts[0]!;
  const data = new Float32Array(parts.length * first.data.length);
  parts.forEach((p, i) => {
    data.set(p.data, i * first.data.length);
  });
  return f32(data, [parts.length, ...first.shape]);
}
