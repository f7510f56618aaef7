/**
 * Loads edit records in the official JSON of E-VQA and E-IC (MMEdit; Cheng et al. 2023), as VisEdit evaluates them:
 * a VQA prompt gets " The answer is:" after it, a caption prompt stays as it is (only its image-locality question gets the cue),
 * and the text-locality prompt `loc` gets a question mark. All problems of the records that are read are reported at once.
 */
import { existsSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { z } from 'zod';
import { readJson } from '../files/json.ts';
import { Random } from '../random.ts';

/** What E-VQA's loader puts after a question. */
export const answerCue = ' The answer is:';

export type DatasetKind = 'vqa' | 'caption';

export interface RecordQuery {
  /** Path of the picture; null for text only. */
  readonly image: string | null;
  readonly prompt: string;
  readonly target: string;
}

export interface RecordRequest extends RecordQuery {
  readonly image: string;
}

/** The five queries of a record, in the order of the metrics. */
export const queryKinds = ['reliability', 'textGenerality', 'modalGenerality', 'textLocality', 'modalLocality'] as const;
/** The name of one of the five queries, which is that of its metric, too. */
export type QueryKind = (typeof queryKinds)[number];

/** An edit to make, and the queries that say what it did. */
export interface EditRecord {
  /** Position in the file, from 0. */
  readonly index: number;
  readonly request: RecordRequest;
  readonly queries: Readonly<Record<QueryKind, RecordQuery>>;
  /**
   * Locality close to the edit, where the file has it: the same picture with another question, and the same question on another picture, on noise and
   * on a grey picture.
   */
  readonly hard?: Readonly<Partial<Record<'sameImage' | 'sameQuestion' | 'noise' | 'grey', RecordQuery>>>;
  /** What the model is expected to say before the edit. */
  readonly pred?: string;
  /** Question kind, in records of the mini world. */
  readonly kind?: string;
  readonly edit?: 'correction' | 'counterfactual';
}

export class RecordsError extends Error {
  readonly problems: readonly string[];

  constructor(file: string, problems: readonly string[], advice?: string) {
    // What is wrong with the file as a whole names no record.
    const whole = problems.every((problem) => !problem.startsWith('record '));
    const shown = problems.slice(0, 40).map((problem) => `  ${problem}`);
    const more = problems.length > shown.length ? [`  and ${problems.length - shown.length} more`] : [];
    super(
      [
        whole
          ? `${file} ${problems.join('; ')}`
          : `${file}: ${problems.length} ${problems.length === 1 ? 'problem' : 'problems'} (records are counted from 0)`,
        ...(whole ? [] : shown),
        ...more,
        ...(advice === undefined ? [] : [advice]),
      ].join('\n'),
    );
    this.name = 'RecordsError';
    this.problems = problems;
  }
}

const text = z
  .string({ error: (issue) => (issue.input === undefined ? 'is missing' : `must be text, not ${kindOf(issue.input)}`) })
  .refine((value) => value.trim() !== '', { error: 'is empty' });

const recordSchema = z.object({
  src: text,
  rephrase: text,
  alt: text,
  image: text,
  image_rephrase: text,
  loc: text,
  loc_ans: text,
  m_loc: text,
  m_loc_q: text,
  m_loc_a: text,
  pred: z.string({ error: (issue) => `must be text, not ${kindOf(issue.input)}` }).optional(),
  kind: text.optional(),
  edit: z.enum(['correction', 'counterfactual'], { error: 'must be "correction" or "counterfactual"' }).optional(),
  s_loc_q: text.optional(),
  s_loc_a: text.optional(),
  q_loc: text.optional(),
  q_loc_a: text.optional(),
  n_loc: text.optional(),
  n_loc_a: text.optional(),
  g_loc: text.optional(),
  g_loc_a: text.optional(),
});
type RawRecord = z.infer<typeof recordSchema>;

const pictureFields = ['image', 'image_rephrase', 'm_loc', 'q_loc', 'n_loc', 'g_loc'] as const;
const companions = [
  ['s_loc_q', 's_loc_a'],
  ['q_loc', 'q_loc_a'],
  ['n_loc', 'n_loc_a'],
  ['g_loc', 'g_loc_a'],
] as const;

/** Which records of a file are read; the others, and their pictures, are not looked at. */
export interface RecordChoice {
  /** what the file holds; found out from its name, else from its prompts, when absent */
  readonly kind?: DatasetKind | undefined;
  /** at most so many records: the first, or with a seed a random choice */
  readonly limit?: number | undefined;
  readonly seed?: number | undefined;
}

/** Records of a file, as far as they were asked for. */
export interface RecordFile {
  readonly kind: DatasetKind;
  /** records in the file */
  readonly total: number;
  /** the chosen ones, in the order of the file */
  readonly records: readonly EditRecord[];
}

/**
 * Records of a file in the layout of E-VQA and E-IC, as the authors evaluate them.
 * @param imagesDir folder that the records' image paths start from
 * @throws RecordsError that lists the problems of all chosen records
 */
export function openRecords(jsonPath: string, imagesDir: string, choice: RecordChoice = {}): RecordFile {
  const items = readItems(jsonPath);
  const kind = choice.kind ?? datasetKind(jsonPath, items);
  const places = chosenPlaces(items.length, choice);
  const records = checkedRecords(jsonPath, imagesDir, items, places).map((raw, i) =>
    toEditRecord(raw, places[i]!, imagesDir, kind),
  );
  return { kind, total: items.length, records };
}

/**
 * All records of a file in the layout of E-VQA and E-IC, as the authors evaluate them.
 * @param imagesDir folder that the records' image paths start from
 * @param kind what the file holds; found out from its name, else from its prompts, when absent
 * @throws RecordsError that lists the problems of the whole file
 */
export function loadRecords(jsonPath: string, imagesDir: string, kind?: DatasetKind): EditRecord[] {
  return [...openRecords(jsonPath, imagesDir, { kind }).records];
}

function chosenPlaces(count: number, { limit, seed }: RecordChoice): number[] {
  const places = Array.from({ length: count }, (_, i) => i);
  if (limit === undefined || limit >= count) return places;
  if (seed === undefined) return places.slice(0, limit);
  const drawn = new Random(`${seed}/evaluated records`).shuffle(places).slice(0, limit);
  return drawn.sort((a, b) => a - b);
}

/** File names of the published data contain "vqa" or "caption"; else questions end in a question mark and caption prompts do not. */
export function datasetKind(jsonPath: string, records: readonly unknown[]): DatasetKind {
  const name = basename(jsonPath).toLowerCase();
  if (name.includes('vqa') !== name.includes('caption')) return name.includes('vqa') ? 'vqa' : 'caption';
  const asks = (record: unknown): boolean => {
    const src = (record as { src?: unknown } | null)?.src;
    return typeof src === 'string' && src.trim().endsWith('?');
  };
  return records.filter(asks).length * 2 >= records.length ? 'vqa' : 'caption';
}

function readItems(jsonPath: string): unknown[] {
  let parsed: unknown;
  try {
    parsed = readJson(jsonPath);
  } catch (error) {
    const what = (error as Error).message.replace(`${jsonPath} `, '');
    throw new RecordsError(jsonPath, [`${what}; records are one JSON list in the layout of E-VQA and E-IC`]);
  }
  if (!Array.isArray(parsed)) throw new RecordsError(jsonPath, [`must hold a list of records, not ${kindOf(parsed)}`]);
  if (parsed.length === 0) throw new RecordsError(jsonPath, ['holds no records; a list of at least one is needed']);
  return parsed;
}

function checkedRecords(jsonPath: string, imagesDir: string, items: readonly unknown[], places: readonly number[]): RawRecord[] {
  const problems: string[] = [];
  let whole = places.length;
  const isFolder = existsSync(imagesDir);
  if (!isFolder) problems.push(`cannot be read with its pictures: the folder of images ${imagesDir} does not exist`);
  const seen = new Map<string, boolean>();
  const found = (path: string): boolean => {
    let there = seen.get(path);
    if (there === undefined) {
      there = existsSync(path);
      seen.set(path, there);
    }
    return there;
  };
  const records = places.flatMap((index, place): RawRecord[] => {
    const item = items[index];
    const say = (problem: string) => problems.push(`record ${index}: ${problem}`);
    if (typeof item !== 'object' || item === null || Array.isArray(item)) {
      say(`must be an object, not ${kindOf(item)}`);
      return [];
    }
    const fields = item as Record<string, unknown>;
    for (const field of pictureFields) {
      const file = fields[field];
      if (typeof file !== 'string' || file.trim() === '' || !isFolder) continue;
      if (found(resolve(imagesDir, file))) continue;
      say(`${field}: there is no image ${file} in ${imagesDir}`);
      whole = Math.min(whole, place);
    }
    for (const pair of companions) {
      const [here, gone] = pair[0] in fields ? pair : [pair[1], pair[0]];
      if (here in fields && !(gone in fields)) say(`${here} is given without ${gone}`);
    }
    const result = recordSchema.safeParse(item);
    if (result.success) return [result.data];
    for (const issue of result.error.issues) say(`${issue.path.join('.')} ${issue.message}`);
    return [];
  });
  const advice =
    seen.size > 0 && ![...seen.values()].includes(true)
      ? `None of the pictures is in ${imagesDir}; name the folder that the paths in the records start from.`
      : whole === 0 || whole === places.length
        ? undefined
        : `The first ${whole} of the records that were asked for have all their pictures: a limit of ${whole} takes only those.`;
  if (problems.length > 0) throw new RecordsError(jsonPath, problems, advice);
  return records;
}

function toEditRecord(raw: RawRecord, index: number, imagesDir: string, dataset: DatasetKind): EditRecord {
  const path = (file: string): string => resolve(imagesDir, file);
  const asked = (prompt: string): string => (dataset === 'vqa' ? prompt + answerCue : prompt);
  const request: RecordRequest = { image: path(raw.image), prompt: asked(raw.src), target: raw.alt };
  const sameImage =
    raw.s_loc_q !== undefined && raw.s_loc_a !== undefined
      ? { image: path(raw.image), prompt: raw.s_loc_q + answerCue, target: raw.s_loc_a }
      : undefined;
  const elsewhere = (file: string | undefined, target: string | undefined): RecordQuery | undefined =>
    file !== undefined && target !== undefined ? { image: path(file), prompt: asked(raw.src), target } : undefined;
  const hard = {
    sameImage,
    sameQuestion: elsewhere(raw.q_loc, raw.q_loc_a),
    noise: elsewhere(raw.n_loc, raw.n_loc_a),
    grey: elsewhere(raw.g_loc, raw.g_loc_a),
  };
  const close = Object.fromEntries(Object.entries(hard).filter(([, query]) => query !== undefined));
  return {
    index,
    request,
    queries: {
      reliability: request,
      textGenerality: { image: path(raw.image), prompt: asked(raw.rephrase), target: raw.alt },
      modalGenerality: { image: path(raw.image_rephrase), prompt: asked(raw.src), target: raw.alt },
      textLocality: { image: null, prompt: `${raw.loc}?`, target: raw.loc_ans },
      modalLocality: { image: path(raw.m_loc), prompt: raw.m_loc_q + answerCue, target: raw.m_loc_a },
    },
    ...(Object.keys(close).length > 0 ? { hard: close } : {}),
    ...(raw.pred === undefined ? {} : { pred: raw.pred }),
    ...(raw.kind === undefined ? {} : { kind: raw.kind }),
    ...(raw.edit === undefined ? {} : { edit: raw.edit }),
  };
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}
