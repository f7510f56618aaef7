/** Orders to the engine's thread and their results: plain values that can be sent between threads. */

import type { EditPlan } from '../../../src/attribution/plan.ts';
import type { Found } from '../../../src/attribution/tools/tool.ts';
import type { EditCheck } from '../../../src/evaluation/scope-card.ts';
import type { Message } from '../../../src/input/chat/chat.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import type { StoredEdit } from '../../../src/ledger/changes.ts';
import type { WeightType } from '../../../src/models/weight-types.ts';

export interface EngineOptions {
  readonly models: readonly string[];
  readonly weights: readonly string[];
  /** modules of editors from outside */
  readonly editors?: readonly string[];
  readonly threads?: number | undefined;
  readonly dtype?: WeightType | undefined;
  readonly maxMemory?: number | undefined;
  readonly minPixels?: number | undefined;
  readonly maxPixels?: number | undefined;
}

export interface EditFile {
  readonly id: string;
  readonly path: string;
}

/** A model under edits, one after the other in their order. */
export interface ModelUnder {
  readonly model: string;
  readonly edits: readonly EditFile[];
}

export interface Question {
  readonly prompt: string;
  readonly image?: RgbImage | undefined;
}

export interface NamedToken {
  readonly id: number;
  readonly text: string;
  /** UTF-8; a token may be a part of a character, which `text` cannot show */
  readonly bytes: Uint8Array;
  readonly logProb: number;
}

export interface SaidToken extends NamedToken {
  /** what the token adds to the text; nothing while a character or a stop word is not complete */
  readonly added: string;
  readonly top: readonly NamedToken[];
}

/** What a model's conversations may hold. */
export interface ChatFacts {
  /** a message with the role system */
  readonly system: boolean;
  /** earlier answers, with the role assistant */
  readonly turns: boolean;
  /** several pictures, in any message of the user */
  readonly pictures: boolean;
}

export interface ModelFacts {
  readonly id: string;
  readonly architecture: string;
  readonly layers: number;
  readonly hidden: number;
  /** null where it depends on the picture */
  readonly visualTokens: number | null;
  readonly patchGrid: readonly [number, number] | null;
  /** height and width that pictures are scaled to */
  readonly imageSize: readonly [number, number] | null;
  readonly vocabulary: number;
  readonly maxPositions: number;
  readonly fingerprint: string;
  /** whether tokens of one picture see each other in both directions */
  readonly bothWays: boolean;
  /** null: it has no chat template */
  readonly chat: ChatFacts | null;
}

export interface EditorFacts {
  readonly id: string;
  readonly summary: string;
  readonly trained: boolean;
  readonly combines: boolean;
  readonly explains: boolean;
  readonly weights: readonly { readonly model: string; readonly name: string }[];
}

export interface Facts {
  readonly models: readonly ModelFacts[];
  readonly editors: readonly EditorFacts[];
}

export interface ChatOrder {
  readonly messages: readonly Message<RgbImage>[];
  readonly under: ModelUnder;
  readonly maxTokens: number;
  readonly stop: readonly string[];
  /** most probable tokens to tell beside each */
  readonly top: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
}

export interface Said {
  readonly text: string;
  readonly tokens: readonly SaidToken[];
  readonly promptTokens: number;
  readonly finish: 'stop' | 'length';
  /** words of the prompt that the model has no token for */
  readonly warnings: readonly string[];
}

export interface EditOrder {
  readonly model: string;
  readonly editor: string;
  readonly weights: string | undefined;
  readonly image: RgbImage;
  readonly prompt: string;
  readonly target: string;
  /** file to write */
  readonly out: string;
  /** edits that it must combine with */
  readonly beside: readonly EditFile[];
  /** whether the questions of a scope card are asked, too */
  readonly card: boolean;
}

/** An edit from a file that the client sent. */
export interface AdoptOrder {
  readonly model: string;
  readonly path: string;
  readonly beside: readonly EditFile[];
}

export interface EditMade {
  readonly editor: string;
  readonly prompt: string;
  readonly target: string;
  readonly fingerprint: string;
  /** null for an edit from a file */
  readonly check: EditCheck | null;
  /** how the prompt was put: as it is, or by the model's chat template */
  readonly form?: 'bare' | 'chat';
  readonly warnings: readonly string[];
}

/** Scope cards to ask anew. */
export interface CardsOrder {
  /** the whole set */
  readonly under: ModelUnder;
  /** of the ledger */
  readonly folder: string;
  /** whose cards */
  readonly edits: readonly StoredEdit[];
}

export type AttributionPart = 'modules' | 'visual' | 'lens';

export interface AttributionOrder extends Question {
  readonly under: ModelUnder;
  readonly answer: readonly number[];
  readonly position: number;
  readonly key: string | number | undefined;
  readonly parts: readonly AttributionPart[];
  readonly layers: readonly number[] | undefined;
  readonly protocol: 'converged' | 'paper';
  /** of the converged protocol */
  readonly error: number;
  readonly budget: number;
  /** of the paper's protocol */
  readonly draws: number;
  readonly sigma: number | 'paper' | undefined;
  readonly noiseAt: 'hidden' | 'norm' | undefined;
  readonly seed: number;
  readonly top: number;
  /** also under no edits */
  readonly before: boolean;
}

export interface ByModule {
  readonly attn: readonly number[];
  readonly mlp: readonly number[];
}

export interface AttributionView {
  readonly key: { readonly id: number; readonly text: string; readonly predicted: boolean; readonly probability: number };
  readonly modules?: {
    readonly contribution: ByModule;
    readonly prob: ByModule & { readonly layer: readonly number[] };
    readonly logit: ByModule & { readonly layer: readonly number[] };
  };
  readonly lens?: readonly {
    readonly layer: number;
    readonly keyProbability: number;
    readonly keyRank: number;
    readonly tokens: readonly NamedToken[];
  }[];
  readonly visual?: {
    readonly grid: readonly [number, number];
    /** the part of the picture that the grid covers, as fractions of it: left, top, width, height */
    readonly seen: readonly [number, number, number, number];
    readonly protocol: string;
    readonly noiseAt: string;
    /** `hiding`: patches were hidden, since visual tokens are no patches; `tokens`: noise on visual tokens */
    readonly patchesBy: 'hiding' | 'tokens';
    readonly layers: readonly {
      readonly layer: number;
      /** where the layer is not causal */
      readonly sees?: { readonly window: number | null; readonly bothDirections: boolean };
      readonly sigma: number;
      readonly draws: number;
      readonly converged: boolean;
      readonly carriesWeight: boolean;
      /** largest standard error, as a share of the largest value */
      readonly error: number;
      readonly errors: readonly number[];
      readonly values: readonly number[];
      readonly patches: readonly number[];
    }[];
  };
}

export interface Attribution extends AttributionView {
  readonly layers: readonly number[];
  readonly before?: AttributionView;
  /** words of the prompt that the model has no token for */
  readonly warnings: readonly string[];
}

/** One of the tools that explain an answer. */
export interface ExplanationOrder extends Question {
  readonly under: ModelUnder;
  readonly tool: string;
  /** of the tool, as they were given */
  readonly options: Readonly<Record<string, string | number | boolean>>;
  readonly answer: readonly number[];
  readonly position: number;
  readonly key: string | number | undefined;
  readonly against: { readonly image?: RgbImage | undefined; readonly prompt?: string | undefined };
  readonly seed: number;
}

export interface Explanation extends Found {
  readonly tool: string;
}

/** Where to edit, from questions about pictures that are files of this machine. */
export interface PlanOrder {
  readonly model: string;
  readonly inputs: readonly { readonly prompt: string; readonly path: string }[];
}

export interface ComparisonOrder {
  readonly before: ModelUnder;
  readonly after: ModelUnder;
  readonly queries: readonly (Question & { readonly kind: string; readonly target: string | undefined })[];
  readonly maxTokens: number;
  readonly top: number;
}

export interface ComparedAnswer {
  readonly text: string;
  readonly tokens: readonly SaidToken[];
  readonly targetProbability: number | null;
}

export interface ComparedQuery {
  readonly before: ComparedAnswer;
  readonly after: ComparedAnswer;
  readonly tokenAgreement: number | null;
  readonly tokenAccuracy: number | null;
}

/** Of each task: its order, its result, and what it tells while it runs. */
export interface Tasks {
  facts: { order: null; result: Facts; news: never };
  chat: { order: ChatOrder; result: Said; news: SaidToken };
  edit: { order: EditOrder; result: EditMade; news: never };
  adopt: { order: AdoptOrder; result: EditMade; news: never };
  cards: { order: CardsOrder; result: (readonly [id: string, check: EditCheck])[]; news: never };
  attribution: { order: AttributionOrder; result: Attribution; news: Progress };
  explanation: { order: ExplanationOrder; result: Explanation; news: Progress };
  plan: { order: PlanOrder; result: EditPlan; news: Progress };
  comparison: { order: ComparisonOrder; result: ComparedQuery[]; news: Progress };
}

export interface Progress {
  readonly done: number;
  readonly total: number;
  readonly note: string;
}

export type TaskName = keyof Tasks;
