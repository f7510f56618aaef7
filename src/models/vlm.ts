/**
 * A vision-LLM ready to run: an architecture, its weights, tokenizer and image processor. Programs are compiled when first asked for and kept. Visual
 * tokens are computed once per picture.
 */

import { createHash } from 'node:crypto';
import type { Dim } from '../graph/dim.ts';
import { f32, graphHash, type Node, nameOf, parameterOp, type Tensor, topological } from '../graph/index.ts';
import { type Asked, anyPicture, type Picture, type PreparedPicture, type RgbImage } from '../input/segments.ts';
import { causalBlocks } from '../nn/layers.ts';
import type { WeightSource } from '../onnx/emit.ts';
import { Recent } from '../recent.ts';
import type { CompileOptions, Engine, Feeds, Program } from '../runtime/program.ts';
import type { Architecture, TextCodec } from './architecture.ts';
import { type Batch, type BatchShape, batchShape, idFeeds, joined, positionFeeds, sightFeeds, spanFeeds } from './batch.ts';
import type { Chat } from './chat.ts';
import { visualFeedsOf, visualWidth } from './deep.ts';
import { checkFinite } from './finite.ts';
import { forward, type Plan } from './forward.ts';
import { identityOf } from './identity.ts';
import { runLayered } from './layered.ts';
import type { MemoryEstimate, ModelSize } from './memory.ts';
import type { Rewrite } from './rewrite.ts';
import { layout, prefixOf, type Sequence } from './sequence.ts';
import type { SharedStates } from './shared-states.ts';
import type { TokenRules } from './token-rules.ts';
import { seePictures } from './vision.ts';
import type { WeightType } from './weight-types.ts';

/** How to compile a program that reads these weights. */
export type LayerOptions = (weights: readonly string[]) => CompileOptions;

/** What a model is made of. */
export interface VlmParts {
  name: string;
  architecture: Architecture;
  /** makes its programs */
  engine: Engine;
  weights: WeightSource;
  codec: TextCodec;
  /** what the image encoder reads of a picture; `together`: pictures of the prompt, this one included */
  processor: (image: RgbImage, together?: number) => PreparedPicture;
  eosIds: readonly number[];
  /** how it chats; read when first asked for */
  chat?: (() => Chat | undefined) | undefined;
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
  /** numbers and bytes of the weights where they are kept as a type; as they are stored when left out */
  sizes?: (type?: WeightType) => ModelSize;
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
  readonly sizes: VlmParts['sizes'];
  readonly #fingerprint: () => string;
  readonly #notFinite: VlmParts['notFinite'];
  readonly #chat: () => Chat | undefined;
  readonly #programs = new Map<string, Promise<Program>>();
  /** programs by what they were asked for with; several may be one */
  readonly #asked = new Map<string, Promise<Program>>();
  readonly #visual = new Recent<Tensor<'float32'>>(visualBudget, ({ data }) => data.byteLength);
  /** pictures being looked at */
  readonly #looking = new Map<string, Promise<Tensor<'float32'>>>();
  /** pictures that the next run looks at */
  #next: { readonly pictures: PreparedPicture[]; readonly seen: Promise<Tensor<'float32'>[]> } | undefined;
  readonly #pictures = new WeakMap<RgbImage, Picture>();
  #usual: Dim | undefined;
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
    this.compileOptions = { ...parts.compileOptions, together: {} };
    this.layered = parts.layered;
    this.memory = parts.memory;
    this.memoryBudget = parts.memoryBudget ?? Number.POSITIVE_INFINITY;
    this.batchLimit = parts.batchLimit ?? Number.POSITIVE_INFINITY;
    this.sizes = parts.sizes;
    this.#fingerprint = parts.fingerprint;
    this.#notFinite = parts.notFinite;
    let chat: { readonly form: Chat | undefined } | undefined;
    this.#chat = () => {
      chat ??= { form: parts.chat?.() };
      return chat.form;
    };
  }

  /** How it chats: see chat.ts. @throws Error when its folder has chat templates that cannot be used */
  get chat(): Chat | undefined {
    return this.#chat();
  }

  get fingerprint(): string {
    return this.#fingerprint();
  }

  get decoder(): Architecture['decoder'] {
    return this.architecture.decoder;
  }

  /**
   * A prompt (and a target behind it) as the decoder's input; see sequence.ts.
   * @throws Error when nothing is asked, the target is empty, or the input is longer than the model takes
   */
  layout(asked: Asked, target?: string): Sequence {
    return layout(
      { architecture: this.architecture, codec: this.codec, picture: (image, together) => this.picture(image, together) },
      asked,
      target,
    );
  }

  /** A picture as a part of inputs. @param together pictures of the prompt, this one included, where that changes how it is read */
  picture(image: RgbImage, together = 1): Picture {
    checkPixels(image);
    const several = together > 1 && this.architecture.readsTogether === true;
    const known = this.#pictures.get(image);
    if (known !== undefined && !several) return known;
    const key = createHash('sha256').update(`${image.width}x${image.height}`).update(image.data).digest('base64');
    if (several) return this.pictureOf(`${key}|${together}`, () => this.processor(image, together));
    const picture = this.pictureOf(key, () => this.processor(image));
    this.#pictures.set(image, picture);
    return picture;
  }

  /**
   * A picture as a part of inputs.
   * @param key equal for equal contents @param prepare called when its pixels, or a number of visual tokens that depends on them, are first needed
   */
  pictureOf(key: string, prepare: () => PreparedPicture): Picture {
    const { fixed } = this.architecture;
    let prepared: PreparedPicture | undefined;
    const ready = (): PreparedPicture => {
      prepared ??= prepare();
      return prepared;
    };
    const see = (): Promise<Tensor<'float32'>> => this.#look(key, ready);
    return {
      key,
      see,
      get count() {
        return fixed?.count ?? ready().count;
      },
      get views() {
        return ready().views;
      },
      get prepared() {
        return ready();
      },
    };
  }

  async #look(key: string, prepare: () => PreparedPicture): Promise<Tensor<'float32'>> {
    const known = this.#visual.get(key);
    if (known !== undefined) return known;
    let looking = this.#looking.get(key);
    if (looking === undefined) {
      looking = this.#seeTogether(prepare()).then((tokens) => {
        this.#visual.put(key, tokens);
        return tokens;
      });
      this.#looking.set(key, looking);
      const done = (): boolean => this.#looking.delete(key);
      looking.then(done, done);
    }
    return looking;
  }

  /** Pictures that are asked for before anything else runs are looked at in one run, up to `picturesOfRun`. */
  #seeTogether(picture: PreparedPicture): Promise<Tensor<'float32'>> {
    if (this.#next === undefined || this.#next.pictures.length >= Math.min(this.batchLimit, picturesOfRun)) {
      const pictures: PreparedPicture[] = [];
      const seen = Promise.resolve().then(() => {
        if (this.#next?.pictures === pictures) this.#next = undefined;
        return this.see(pictures);
      });
      this.#next = { pictures, seen };
    }
    const { pictures, seen } = this.#next;
    const place = pictures.push(picture) - 1;
    return seen.then((tokens) => tokens[place]!);
  }

  /** Visual tokens [count, d] of each picture, computed together where their pixels have one shape; nothing is kept. */
  see(pictures: readonly PreparedPicture[]): Promise<Tensor<'float32'>[]> {
    return seePictures(this, pictures);
  }

  /**
   * A compiled program.
   * @param build a function of the module that asks; the graph depends on the model and `args` alone
   * @param args plain data, rewrites, and functions of modules
   */
  program<A extends readonly unknown[]>(build: (vlm: Vlm, ...args: A) => Record<string, Node>, ...args: A): Promise<Program> {
    return this.#compiled(
      `${identityOf(build)}${keyOf(args)}`,
      () => build(this, ...args),
      () => this.compileOptions,
    );
  }

  /**
   * Runs of a causal sequence of this length for `attend`: none where it is short, not known before a run, not causal, or the device has no use for
   * them.
   */
  readonly runsOf = (length: Dim | undefined): readonly number[] =>
    typeof length === 'number' && this.engine.device.causalRuns && this.decoder.sight === undefined ? causalBlocks(length) : [];

  /** The program of a plan, edited by a rewrite. */
  planned(plan: Plan, rewrite?: Rewrite): Promise<Program> {
    const given = { decoder: this.decoder, runsOf: this.runsOf, rewrite };
    return this.#compiled(
      keyOf([plan, rewrite]),
      () => forward(given, plan),
      (outputs) => this.layered?.(parametersOf(outputs)) ?? this.compileOptions,
    );
  }

  /** Programs with equal graphs and options are one; what failed is tried again when it is next asked for. */
  #compiled(
    asked: string,
    build: () => Record<string, Node>,
    optionsOf: (outputs: Record<string, Node>) => CompileOptions,
  ): Promise<Program> {
    const known = this.#asked.get(asked);
    if (known !== undefined) return known;
    const outputs = build();
    const options = optionsOf(outputs);
    const hash = `${graphHash(outputs)}${JSON.stringify(options)}`;
    let program = this.#programs.get(hash);
    if (program === undefined) {
      const afterRun = (given: Readonly<Record<string, Tensor>>): void =>
        checkFinite(given, this.name, () => this.#notFinite?.());
      program = this.engine.compile(outputs, { ...options, weights: this.weights, afterRun });
      this.#programs.set(hash, program);
    }
    this.#asked.set(asked, program);
    program.catch(() => {
      this.#asked.delete(asked);
      this.#programs.delete(hash);
    });
    return program;
  }

  /** Forgets what was computed of pictures; programs stay. */
  forget(): void {
    this.#visual.clear();
    this.states.clear();
  }

  /** Releases programs and what was computed of pictures. @throws what the first program that could not be released threw, after all others */
  async release(): Promise<void> {
    const programs = [...this.#programs.values()];
    this.#programs.clear();
    this.#asked.clear();
    this.forget();
    const opened = (await Promise.allSettled(programs)).flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    const released = await Promise.allSettled(opened.map((program) => program.release()));
    for (const one of released) if (one.status === 'rejected') throw one.reason;
  }

  /**
   * How programs are told where the pictures' part of their inputs ends: the number where it is that of a bare prompt with one picture, which most inputs
   * have in families of fixed pictures, and otherwise a symbol, so that one program serves all.
   */
  prefixDim(prefix: number): Dim {
    return prefix === this.usualPrefix ? prefix : 'P';
  }

  /** Any picture, where only its place in a prompt matters; of one visual token where that number depends on the picture. */
  get anyPicture(): Picture {
    return { ...anyPicture, count: this.architecture.fixed?.count ?? 1 };
  }

  /** `prefixDim` of bare prompts with one picture. */
  get usualPrefix(): Dim {
    const { fixed } = this.architecture;
    this.#usual ??= fixed === undefined ? 'P' : prefixOf(this.layout({ prompt: 'x', image: this.anyPicture }));
    return this.#usual;
  }

  /** Inputs side by side, with the tensors that programs read; see `batchShape`. */
  async batch(sequences: readonly Sequence[], mixed = false): Promise<Batch> {
    const shape = batchShape(sequences, mixed);
    const axes = this.decoder.positionAxes ?? 1;
    const whole = positionFeeds(shape, axes);
    return {
      ...shape,
      feeds: {
        ids: idFeeds(shape),
        positions: whole,
        ...sightFeeds(this.decoder, shape),
        ...(shape.image
          ? {
              ...spanFeeds(sequences, shape.length),
              ...(await visualFeeds(this.decoder, shape)),
              ...this.#parts(shape),
            }
          : {}),
      },
    };
  }

  #parts(shape: ReturnType<typeof batchShape>): Feeds {
    const axes = this.decoder.positionAxes ?? 1;
    if (typeof this.prefixDim(shape.prefix) === 'number') return {};
    return {
      'positions.prefix': positionFeeds(shape, axes, 'prefix'),
      'positions.text': positionFeeds(shape, axes, 'text'),
    };
  }

  /** Runs a plan over a batch; `hidden` [b, l, d] is needed when the plan does not start at the tokens. */
  async run(
    plan: Omit<Plan, 'image' | 'prefix'>,
    batch: Batch,
    extra: Feeds = {},
    rewrite?: Rewrite,
  ): Promise<Record<string, Tensor>> {
    const all: Record<string, Tensor> = { ...batch.feeds, ...extra, ...rewrite?.feeds };
    const whole = { ...plan, image: batch.image, prefix: batch.image ? this.prefixDim(batch.prefix) : undefined };
    if (this.layered !== undefined) return runLayered(this, whole, all, rewrite);
    return (await this.planned(whole, rewrite)).run(all);
  }

  /** Logits at every column, [b, l, n]. */
  async logits(batch: Batch, rewrite?: Rewrite): Promise<Tensor<'float32'>> {
    const out = await this.run({ from: 0, to: this.decoder.layers, read: ['logits'] }, batch, {}, rewrite);
    return out.logits as Tensor<'float32'>;
  }
}

/** Pictures that one run of the image encoder takes. */
const picturesOfRun = 8;

/** @throws Error when a picture has no pixels, or not as many as its size says */
function checkPixels({ width, height, data }: RgbImage): void {
  if (!(width >= 1 && height >= 1)) throw new Error(`the picture is ${width} by ${height} pixels; at least one by one is needed`);
  const needed = 3 * width * height;
  if (data.length !== needed)
    throw new Error(
      `a picture of ${width} by ${height} pixels has ${needed} bytes of red, green and blue; this one has ${data.length}`,
    );
}

/** Bytes of visual tokens kept. */
const visualBudget = 512e6;

/** Visual tokens of inputs with pictures, in the order of the pictures: see `visualFeedsOf`. */
export async function visualFeeds(decoder: Architecture['decoder'], shape: BatchShape): Promise<Feeds> {
  const rows = await Promise.all(shape.sequences.map(({ pictures }) => Promise.all(pictures.map((picture) => picture.see()))));
  const tokens = rows.map((own) => (own.length === 0 ? f32([], [0, visualWidth(decoder)]) : joined(own)));
  return visualFeedsOf(decoder, shape, tokens);
}

/** Plain data as text; of a rewrite its key, of a function its identity. */
const keyOf = (args: unknown): string =>
  JSON.stringify(args, (_, value: unknown) => {
    if (typeof value === 'function') return identityOf(value);
    return typeof value === 'object' && value !== null && 'patches' in value ? (value as Rewrite).key : value;
  });

const parametersOf = (outputs: Readonly<Record<string, Node>>): string[] =>
  topological(Object.values(outputs))
    .filter((node) => node.op === parameterOp)
    .map(nameOf);
