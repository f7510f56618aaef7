/** What the server of `visedit serve` sends and takes, as far as the studio uses it (docs/server.md). */

export interface Listing<T> {
  data: T[];
  total?: number;
}

export interface Model {
  id: string;
  visedit: {
    base: string;
    set: string | null;
    architecture: string;
    layers: number;
    hidden: number;
    visual_tokens: number | null;
    patch_grid: [number, number] | null;
    vocabulary: number;
    edits: number;
    /** Tokens of one picture see each other in both directions. */
    both_ways: boolean;
    /** What its conversations may have; null: it has no template for them. */
    chat: { system: boolean; turns: boolean; pictures: boolean } | null;
  };
}

export interface Token {
  id: number;
  text: string;
  /** 0 to 1 */
  probability: number;
  /** The most probable tokens at this place, this one among them when it is one of them. */
  top: { id: number; text: string; probability: number }[];
}

export interface Editor {
  id: string;
  summary: string;
  trained: boolean;
  combines: boolean;
  explains: boolean;
  weights: { model: string; name: string }[];
}

export interface Edit {
  id: string;
  model: string;
  set: string;
  editor: string;
  weights: string | null;
  prompt: string;
  target: string;
  enabled: boolean;
  /** Unix seconds. */
  created: number;
  note: string | null;
  bytes: number;
  picture: string | null;
  position: number;
  /** What the tokenizer does not know of the prompt and the target. */
  warnings: string[];
  /** Whether the target came when the edit was made; absent from edits that came as files. */
  took?: boolean;
  after?: { text: string; probability: number };
  card?: CardRow[];
}

/** One question around an edit, asked without it and with it. */
export interface CardRow {
  kind: string;
  prompt: string;
  picture: 'own' | 'copy' | 'other' | 'none';
  expected: string;
  before: string;
  after: string;
  ok: boolean;
}

export interface EditSet {
  id: string;
  model: string;
  name: string;
  editor: string | null;
  revision: number;
  edits: { id: string; enabled: boolean }[];
  history: { revision: number; at: number; action: string; edit: string | null; to: number | null }[];
}

/** An edit of a set about the same question on the same picture. */
export interface Conflict {
  kind: 'contradicts' | 'repeats';
  edit: string;
  question: string;
  target: string;
}

export interface ModuleValues {
  attn: number[];
  mlp: number[];
}

export interface LensLayer {
  layer: number;
  key_probability: number;
  /** 0: the most probable. */
  key_rank: number;
  tokens: { id: number; text: string; probability: number }[];
}

export interface KeyToken {
  id: number;
  text: string;
  predicted: boolean;
  probability: number;
}

export interface VisualMaps {
  /** Rows and columns. */
  grid: [number, number];
  /** The part of the picture that the grid covers: left, top, width, height as fractions of it. */
  seen: [number, number, number, number];
  layers: {
    layer: number;
    sigma: number;
    draws: number;
    converged: boolean;
    carries_weight: boolean;
    error: number;
    patches: number[];
  }[];
}

export interface AttributionParts {
  key: KeyToken;
  modules?: { contribution: ModuleValues; prob: ModuleValues & { layer: number[] } };
  lens?: LensLayer[];
  visual?: VisualMaps;
}

export interface Attribution extends AttributionParts {
  model: string;
  prompt: string;
  layers: number[];
  before?: AttributionParts;
}

/** An option of a tool, as JSON schema says it. */
export interface ToolOption {
  type?: 'string' | 'number' | 'integer' | 'boolean';
  enum?: string[];
  default?: string | number | boolean;
  description?: string;
  minimum?: number;
}

export interface Tool {
  id: string;
  summary: string;
  details: string;
  picture: boolean;
  compares: 'must' | 'may' | null;
  options: { properties?: Record<string, ToolOption>; required?: string[] };
}

export const queryKinds = ['reliability', 'textGenerality', 'modalGenerality', 'textLocality', 'modalLocality'] as const;
export type QueryKind = (typeof queryKinds)[number];

export interface ComparedAnswer {
  text: string;
  tokens: Token[];
  target_probability: number | null;
}

export interface ComparedQuery {
  kind: QueryKind;
  prompt: string;
  target: string | null;
  before: ComparedAnswer;
  after: ComparedAnswer;
  same: boolean;
  token_agreement: number | null;
  token_accuracy: number | null;
  passed: boolean | null;
}

export interface Comparison {
  before: string;
  after: string;
  queries: ComparedQuery[];
}

export interface Dataset {
  id: string;
  kind: 'vqa' | 'caption';
  records: number | null;
  state: string;
  title: string;
}

export interface RecordQuery {
  image: string | null;
  prompt: string;
  target: string;
}

export interface DataRecord {
  index: number;
  kind: string | null;
  edit: string | null;
  expected: string | null;
  request: RecordQuery & { image: string };
  queries: Record<QueryKind, RecordQuery> & Partial<Record<'sameImage' | 'sameQuestion' | 'noise' | 'grey', RecordQuery>>;
}

export interface Run {
  id: string;
  kind: 'evaluation' | 'training';
  state: 'running' | 'finished' | 'stopped';
  editor: string | null;
  model: string | null;
  data: string | null;
  dataset: string | null;
  finished: boolean;
  /** A date as ISO text. */
  started: string | null;
  seconds: number | null;
  count: number | null;
  summary?: Partial<Record<QueryKind | 'average', number>>;
  loss?: number | null;
  steps?: { done: number; total: number | null } | null;
  manifest?: Record<string, unknown>;
}

export interface RunRecord {
  index: number;
  kind?: string | null;
  edit?: string | null;
  target?: string;
  queries: Partial<
    Record<
      QueryKind,
      {
        accuracy: number;
        text?: string;
        exact?: boolean | number;
        textBefore?: string;
        accuracyBefore?: number;
        probability?: [number, number];
      }
    >
  >;
}

/** Also the parts of the loss, by their names; `smoothed` where the trainer keeps it. */
export type LogLine = { step: number; loss: number; smoothed?: number } & Record<string, number>;

export interface Job<T> {
  id: string;
  state: 'queued' | 'running' | 'done' | 'failed' | 'cancelled';
  progress: { done: number; total: number | null; note: string | null };
  result?: T;
  error?: { message: string };
}

export interface ServerState {
  version: string;
  key: boolean;
  runs: boolean;
  limits: { body_bytes: number };
  queue: { running: number; waiting: number; limit: number };
}
