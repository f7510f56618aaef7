/**
 * IKE, in-context knowledge editing (Zheng et al. 2023): no weight changes; demonstrations of how to use a new fact, and the fact itself, stand
 * before every query. A demonstration is one training edit with an answer of one kind: `copy` repeats the request, `update` asks it in another way
 * or about another picture of the same, `retain` asks something that the edit leaves as it was. They are in the paper's proportion 1 : 3 : 4, chosen
 * by similarity to the request, the most similar one nearest to the query.
 *   New Fact: {prompt} {target}⏎ Prompt: {query} {answer}⏎⏎   …   New Fact: {prompt} {target}⏎ Prompt: {query}
 * `train` learns no weights; it builds the index of demonstrations from the training edits, and the index is the editor's weights.
 *
 * Pictures stand before the texts that are about them, as visual tokens (placed.ts): one before a demonstration of a single picture, else one before
 * the fact and one before the query. They are left out by default where fewer than four demonstrations with pictures fit in half of the positions
 * (LLaVA-1.5's 576 visual tokens), as Cheng et al. (2023) leave them out for all models.
 *
 * Deviations: similarity is that of the backbone's own states (representation.ts) instead of a sentence encoder's; each training edit is kept with one
 * kind of answer, so that each of the k places is filled by the most similar edit of its kind; `pool` bounds the index; what does not fit in
 * `context` tokens is left out, the least similar first; where the tokenizer does not know the words "New Fact" and "Prompt" they are left out.
 * Published: k = 16, and 3/4 of the positions.
 */

import { createHash } from 'node:crypto';
import { z } from 'zod';
import { f32, type Tensor } from '../graph/index.ts';
import { decodeImage } from '../input/image/decode.ts';
import { finestView, rowView } from '../input/image/views.ts';
import type { EditRecord, RecordQuery } from '../input/records.ts';
import { type Asked, changeQuestion, type Picture, type RgbImage } from '../input/segments.ts';
import type { AnsweringModel } from '../models/answer.ts';
import { usualTokens } from '../models/architecture.ts';
import { joined as joinTokens } from '../models/batch.ts';
import { visualWidth } from '../models/deep.ts';
import type { Sequence } from '../models/sequence.ts';
import type { Vlm } from '../models/vlm.ts';
import { Stopped } from '../nn/loop.ts';
import { Random } from '../random.ts';
import { best, type Memory, own, shared, tensorOf } from './context/memory.ts';
import { answerPlaced, behind, type Context, contextOf, generatePlaced, joined } from './context/placed.ts';
import { centerOf, describeRequests, keyOf, keysOf, middleLayer, similarity } from './context/representation.ts';
import { wordingFor } from './context/wording.ts';
import {
  checkEdits,
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  modelId,
  needWeights,
  type Settings,
  type TrainOptions,
  wordsOf,
} from './editor.ts';
import { trainedWeights, writeEditorWeights } from './files.ts';
import { type Forms, type Made, type Shape, tokensProblem } from './forms.ts';
import { flag, inFile, layerOf, parseSettings, size, trainingConfig, whole } from './settings.ts';

const id = 'ike';

export const kinds = ['copy', 'update', 'retain'] as const;
export type DemonstrationKind = (typeof kinds)[number];

/** Kinds of demonstrations in the order of similarity, the most similar first. Where only the first few fit, they still are of several kinds. */
const places: readonly DemonstrationKind[] = ['update', 'retain', 'update', 'retain', 'copy', 'retain', 'update', 'retain'];

/** Tokens kept free for the query's answer. */
const ANSWER = 48;
const PADDING = -2;

/** Fields that `edit` may set anew for the edits it makes. */
const perEdit = {
  k: whole('demonstrations before the fact'),
  context: size('most tokens before the query, the fact included'),
};

const trainSchema = (vlm: Vlm) => {
  const { maxPositions } = vlm.decoder;
  const pictures = 4 * (usualTokens(vlm.architecture) + 24) <= maxPositions / 2;
  return z.object({
    k: perEdit.k.default(16),
    context: perEdit.context.default(Math.floor(0.75 * maxPositions)),
    pool: size('training edits in the index').default(pictures ? 256 : 4096),
    pictures: flag('whether demonstrations and the fact carry their pictures').default(pictures),
    layer: layerOf(vlm, 'decoder layer whose states say what is similar, from 0', { option: '--layer' }).default(
      middleLayer(vlm),
    ),
  });
};
type IkeConfig = z.output<ReturnType<typeof trainSchema>>;

const editSchema = z.object(perEdit).partial();

interface Wording {
  readonly words: string;
  fact(prompt: string, target: string): string;
  ask(prompt: string): string;
}

/** The published words, and none. */
const wordings: readonly [Wording, ...Wording[]] = [
  {
    words: 'New Fact: Prompt:',
    fact: (prompt, target) => `New Fact: ${prompt} ${target}\n`,
    ask: (prompt) => `Prompt: ${prompt}`,
  },
  { words: '', fact: (prompt, target) => `${prompt} ${target}\n`, ask: (prompt) => prompt },
];

/** The answer that a demonstration of a kind shows; which of several is drawn. */
function shown({ queries }: EditRecord, kind: DemonstrationKind, random: Random): RecordQuery {
  if (kind === 'copy') return queries.reliability;
  if (kind === 'update') return random.pick([queries.textGenerality, queries.modalGenerality]);
  return random.pick([queries.modalLocality, queries.textLocality]);
}

/** Tokens and pictures of a training edit with one answer of its kind. */
export async function demonstration(vlm: Vlm, { request }: EditRecord, query: RecordQuery, pictures: boolean): Promise<Context> {
  const { fact, ask } = wordingFor(vlm.codec, wordings);
  const said = fact(request.prompt, request.target);
  const asked = `${ask(query.prompt)} ${query.target}\n\n`;
  const picture = async (path: string | null): Promise<RgbImage | undefined> =>
    path === null || !pictures ? undefined : decodeImage(path);
  if (!pictures || query.image === request.image)
    return contextOf(vlm, { prompt: said + asked, image: await picture(request.image) });
  return joined([
    contextOf(vlm, { prompt: said, image: await picture(request.image) }),
    contextOf(vlm, { prompt: asked, image: await picture(query.image) }),
  ]);
}

async function train(vlm: Vlm, records: readonly EditRecord[], options: TrainOptions): Promise<EditorWeights> {
  const config = trainingConfig(id, trainSchema(vlm), options);
  const random = new Random(`${options.seed}/${id}`);
  const chosen = random.shuffle(records).slice(0, config.pool);
  const demonstrations: Context[] = [];
  const kindOf: number[] = [];
  const descriptions: Float32Array[] = [];
  for (const [i, record] of chosen.entries()) {
    if (options.signal?.aborted) throw new Stopped('stopped before the index was built; run again to build it');
    const kind = places[i % places.length]!;
    const query = shown(record, kind, random.fork(record.index));
    demonstrations.push(await demonstration(vlm, record, query, config.pictures));
    kindOf.push(kinds.indexOf(kind));
    descriptions.push(...(await describeRequests(vlm, [record], config.layer)));
    options.onStep?.({ step: i + 1, steps: chosen.length, loss: 0, metrics: {} });
  }
  const center = centerOf(descriptions);
  const weights: EditorWeights = {
    editor: id,
    model: modelId(vlm),
    settings: { ...config, seed: String(options.seed), records: records.length },
    tensors: new Map([
      ['center', center],
      ['keys', rows(descriptions.map((description) => keyOf(description, center)))],
      ['kinds', f32(kindOf, [kindOf.length])],
      ...(await contextTensors(vlm, demonstrations)),
    ]),
  };
  writeEditorWeights(trainedWeights(options.out), weights);
  return weights;
}

/** [n, width], padded with PADDING. */
function rows(lists: readonly ArrayLike<number>[]): Tensor<'float32'> {
  const width = Math.max(1, ...lists.map((list) => list.length));
  const data = new Float32Array(lists.length * width).fill(PADDING);
  lists.forEach((list, i) => {
    data.set(list, i * width);
  });
  return f32(data, [lists.length, width]);
}

/**
 * `ids` [n, length] and the visual tokens of all pictures behind each other [total, d], with `counts` [pictures] of each; every context has the next of
 * them, as many as it has places for. `grids` [pictures, 2]: rows and columns of those whose visual tokens lie so, which decides their positions.
 */
async function contextTensors(vlm: Vlm, contexts: readonly Context[]): Promise<[string, Tensor<'float32'>][]> {
  const ids: [string, Tensor<'float32'>] = ['ids', rows(contexts.map((context) => context.ids))];
  const pictures = contexts.flatMap((context) => context.pictures);
  if (pictures.length === 0) return [ids];
  const seen = await Promise.all(pictures.map((picture) => picture.see()));
  const counts = pictures.map(({ count }) => count);
  const grids =
    vlm.architecture.positions === undefined
      ? []
      : pictures.flatMap(({ views, count }) => (views === undefined ? [1, count] : finestView(views).grid));
  return [
    ids,
    ['visual', joinTokens(seen)],
    ['counts', f32(counts, [counts.length])],
    ...(grids.length > 0 ? [['grids', f32(grids, [counts.length, 2])] as [string, Tensor<'float32'>]] : []),
  ];
}

/** What `contextTensors` wrote. */
function contextsOf(vlm: Vlm, tensors: ReadonlyMap<string, Tensor<'float32'>>): Context[] {
  const d = visualWidth(vlm.decoder);
  const { data, shape } = tensors.get('ids')!;
  const visual = tensors.get('visual');
  const counts = tensors.get('counts')?.data ?? countsOf(visual);
  const grids = tensors.get('grids')?.data;
  let next = 0;
  let at = 0;
  return Array.from({ length: shape[0]! }, (_, i) => {
    const ids = [...data.subarray(i * shape[1]!, (i + 1) * shape[1]!)].filter((token) => token !== PADDING);
    const pictures: Picture[] = [];
    const spans: [number, number][][] = [];
    const places = ids.flatMap((token, place) => (token === -1 ? [place] : []));
    while (places.length > 0) {
      const [rows, columns] = [grids?.[2 * next], grids?.[2 * next + 1]];
      const views =
        rows === undefined || columns === undefined
          ? undefined
          : [rowView('whole', { left: 0, top: 0, width: columns, height: rows }, [rows, columns])];
      const count = counts[next++]!;
      const tokens = f32(visual!.data.slice(at * d, (at + count) * d), [count, d]);
      const key = createHash('sha256').update(tokens.data).digest('base64');
      pictures.push({ key, count, views, see: () => Promise.resolve(tokens) });
      spans.push(runsOf(places.splice(0, count)));
      at += count;
    }
    return { ids, pictures, spans };
  });
}

/** Places in rising order as runs [start, end): other tokens may stand between those of a picture. */
function runsOf(places: readonly number[]): [number, number][] {
  const runs: [number, number][] = [];
  for (const place of places) {
    const last = runs.at(-1);
    if (last?.[1] === place) last[1] = place + 1;
    else runs.push([place, place + 1]);
  }
  return runs;
}

/** Visual tokens [pictures, v, d] of edits in which every picture has as many. */
const countsOf = (visual: Tensor<'float32'> | undefined): number[] =>
  visual === undefined || visual.shape.length < 3 ? [] : new Array<number>(visual.shape[0]!).fill(visual.shape[1]!);

/** Places in the index of the k demonstrations for a request, the most similar first. */
export function retrieve(key: Float32Array, keys: readonly Float32Array[], kindOf: readonly number[], k: number): number[] {
  const left = new Map(keys.map((other, i) => [i, similarity(key, other)]));
  const out: number[] = [];
  for (let place = 0; place < k && left.size > 0; place++) {
    const kind = kinds.indexOf(places[place % places.length]!);
    let chosen: number | undefined;
    for (const [i, score] of left) {
      if (kindOf[i] === kind && (chosen === undefined || score > left.get(chosen)!)) chosen = i;
    }
    if (chosen === undefined) continue;
    out.push(chosen);
    left.delete(chosen);
  }
  return out;
}

async function edit(vlm: Vlm, requests: readonly EditRequest[], given?: EditorWeights, chosen?: Settings): Promise<Edit[]> {
  const { tensors, settings } = needWeights(id, vlm, given, forms.weights);
  const config = { ...(settings as unknown as IkeConfig), ...parseSettings(id, editSchema, chosen) };
  const index = contextsOf(vlm, tensors);
  const keys = tensors.get('keys')!;
  const width = keys.shape[1]!;
  const stored = index.map((_, i) => keys.data.subarray(i * width, (i + 1) * width));
  const kindOf = [...tensors.get('kinds')!.data];
  const { fact } = wordingFor(vlm.codec, wordings);
  const edits: Edit[] = [];
  for (const { image, prompt, target } of requests) {
    // Says what is wrong with the request.
    vlm.layout({ prompt, image }, target);
    const [key] = await keysOf(vlm, [{ image, prompt }], config.layer, tensors.get('center')!);
    const told = changeQuestion(prompt, (text) => fact(text, target));
    const news = contextOf(vlm, { prompt: told, image: config.pictures ? image : undefined });
    const before: Context[] = [];
    let length = news.ids.length;
    for (const i of retrieve(key!, stored, kindOf, config.k)) {
      length += index[i]!.ids.length;
      if (length > config.context) break;
      before.unshift(index[i]!);
    }
    edits.push({
      editor: id,
      model: modelId(vlm),
      request: wordsOf({ prompt, target }),
      settings: { k: before.length, context: config.context, pictures: config.pictures, layer: config.layer },
      tensors: new Map([
        ['key', f32(key!, [width])],
        ['center', tensors.get('center')!],
        ...(await contextTensors(vlm, [...before, news])),
      ]),
    });
  }
  return edits;
}

/** A query whose target may be left out. */
type MaybeTold = Asked & { readonly target?: string };

/** A query behind the demonstrations and the fact; the least similar demonstrations make room for a long query. */
function place(vlm: Vlm, { target, ...asked }: MaybeTold, { tensors }: Edit): Sequence {
  const contexts = contextsOf(vlm, tensors);
  // Says what is wrong with the query, where nothing is before it.
  const { promptEnd } = vlm.layout(asked, target);
  const room = vlm.decoder.maxPositions - ANSWER - promptEnd - 1;
  while (contexts.length > 1 && contexts.reduce((sum, { ids }) => sum + ids.length, 0) > room) contexts.shift();
  const prompt = changeQuestion(asked.prompt, (text) => wordingFor(vlm.codec, wordings).ask(text));
  return behind(vlm, joined(contexts), { ...asked, prompt, ...(target !== undefined && { target }) });
}

/** Every query behind the demonstrations of the edit that it is under, of several stored ones that of the most similar request. */
function under(vlm: Vlm, memory: Memory): AnsweringModel {
  const placed = async (queries: readonly MaybeTold[]): Promise<Sequence[]> => {
    const out: Sequence[] = [];
    for (const [i, edits] of memory(queries.length).entries())
      out.push(place(vlm, queries[i]!, await nearest(vlm, queries[i]!, edits)));
    return out;
  };
  return {
    answerTargets: async (queries) => answerPlaced(vlm, await placed(queries)),
    generate: async (queries, options) => generatePlaced(vlm, await placed(queries), options),
  };
}

async function nearest(vlm: Vlm, query: Asked, edits: readonly Edit[]): Promise<Edit> {
  const first = edits[0]!;
  if (edits.length === 1) return first;
  const [key] = await keysOf(vlm, [query], first.settings.layer as number, tensorOf(first, 'center'));
  return best(edits, (edit) => similarity(key!, tensorOf(edit, 'key').data)).edit;
}

/** Contexts as `contextTensors` writes them, or as they were when every picture had as many visual tokens. */
function contextShapes(vlm: Vlm, { tensors }: Made): [string, Shape][] {
  const d = visualWidth(vlm.decoder);
  const ids: [string, Shape] = ['ids', ['contexts', 'tokens']];
  const visual = tensors.get('visual');
  if (visual === undefined) return [ids];
  if (visual.shape.length === 3 && !tensors.has('counts')) return [ids, ['visual', ['pictures', 'visual tokens', d]]];
  const grids: [string, Shape][] = tensors.has('grids') ? [['grids', ['pictures', 2]]] : [];
  return [ids, ['visual', ['visual tokens', d]], ['counts', ['pictures']], ...grids];
}

/** The places of every context are those of the next pictures, and no picture is left. */
function contextProblem(vlm: Vlm, made: Made): string | undefined {
  const { data, shape } = made.tensors.get('ids')!;
  const visual = made.tensors.get('visual');
  const counts = [...(made.tensors.get('counts')?.data ?? countsOf(visual))];
  const total = visual === undefined ? 0 : visual.data.length / visualWidth(vlm.decoder);
  if (counts.some((count) => !Number.isInteger(count) || count < 1) || counts.reduce((a, b) => a + b, 0) !== total)
    return `the tensor counts must say how the ${total} visual tokens belong to pictures, got ${counts.join(', ')}`;
  const grids = made.tensors.get('grids')?.data;
  if (grids !== undefined && counts.some((count, i) => grids[2 * i]! * grids[2 * i + 1]! !== count))
    return 'the tensor grids must say as many rows and columns as each picture has visual tokens in counts';
  for (let row = 0; row < shape[0]!; row++) {
    let places = data.subarray(row * shape[1]!, (row + 1) * shape[1]!).filter((id) => id === -1).length;
    while (places > 0) {
      const count = counts.shift();
      if (count === undefined || count > places)
        return `the tensor ids must have places for the pictures of ${made.tensors.has('counts') ? 'counts' : 'visual'}, got others`;
      places -= count;
    }
  }
  return counts.length > 0 ? 'the tensor ids must have places for all pictures' : tokensProblem(vlm, 'ids', made, PADDING);
}

const forms: Forms = {
  edit: {
    settings: (vlm) => inFile(trainSchema(vlm).shape, ['layer']),
    tensors: (vlm, made) => [
      ['key', [3 * vlm.decoder.hidden]],
      ['center', [3 * vlm.decoder.hidden]],
      ...contextShapes(vlm, made),
    ],
    problem: contextProblem,
  },
  weights: {
    settings: (vlm) => inFile(trainSchema(vlm).shape, ['k', 'context', 'pictures', 'layer']),
    tensors: (vlm, made) => [
      ['center', [3 * vlm.decoder.hidden]],
      ['keys', ['contexts', 3 * vlm.decoder.hidden]],
      ['kinds', ['contexts']],
      ...contextShapes(vlm, made),
    ],
    problem: contextProblem,
  },
};

/** Keys are compared that were taken from one center. */
function checkIndex(vlm: Vlm, edits: readonly Edit[]): void {
  checkEdits(id, vlm, edits, forms);
  const [first] = edits as [Edit];
  const center = tensorOf(first, 'center').data;
  for (const edit of edits) {
    const own = tensorOf(edit, 'center').data;
    if (edit.settings.layer !== first.settings.layer || own.some((x, i) => x !== center[i]))
      throw new Error(
        `edits of ${id} that were made with different weights do not combine; make them again with the same weights`,
      );
  }
}

export const ike: Editor = {
  id,
  summary: 'puts the new fact and demonstrations of its use before every query',
  trained: true,
  promises: { textUntouched: false, batchEqualsSingles: true, answersTarget: false, explains: false },
  settings: { train: trainSchema, edit: () => editSchema },
  forms,
  train,
  trainingSettings: (vlm, options) => ({ ...trainingConfig(id, trainSchema(vlm), options) }),
  edit,
  with: (vlm, edits) => {
    checkEdits(id, vlm, edits, forms);
    return under(vlm, own(edits));
  },
  chain: (vlm, edits) => {
    checkIndex(vlm, edits);
    return under(vlm, shared(edits));
  },
};
