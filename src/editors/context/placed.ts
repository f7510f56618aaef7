/**
 * Inputs with pictures at any place, as many as fit: their visual tokens take the place of the embeddings of tokens that stand for them. So a text
 * with pictures can stand before a query, whose own tokens keep their order and move back by its length, positions and all.
 */

import { add, f32, i64, input, mul, type Tensor } from '../../graph/index.ts';
import { batchRows, readAnswers, type TargetAnswer, targetRows } from '../../models/answer.ts';
import { forRows, type GenerateOptions, generate } from '../../models/generate.ts';
import type { Sequence } from '../../models/sequence.ts';
import type { Batch, Rewrite, RgbImage, Vlm } from '../../models/vlm.ts';

/** Tokens and pictures: runs of −1 among the ids are the visual tokens, in the order of `pictures` [v, d]. */
export interface Context {
  readonly ids: readonly number[];
  readonly pictures: readonly Tensor<'float32'>[];
}

export interface Placed extends Context {
  readonly sequence: Sequence;
}

/** A query whose target may be left out. */
export interface Asked {
  readonly prompt: string;
  readonly image?: RgbImage | undefined;
  readonly target?: string;
}

/** A text with its picture before it as the architecture lays it out, without the token that begins every input. */
export async function segmentOf(vlm: Vlm, text: string, image: RgbImage | undefined): Promise<Context> {
  const { architecture, codec } = vlm;
  const begin = architecture.layout('x', true, codec).before;
  const { before, after } = architecture.layout(text, image !== undefined, codec);
  const visual = image === undefined ? 0 : architecture.visualTokens;
  const ids = [...before, ...new Array<number>(visual).fill(-1), ...after];
  const begins = begin.length > 0 && begin.every((id, i) => ids[i] === id);
  return {
    ids: begins ? ids.slice(begin.length) : ids,
    pictures: image === undefined ? [] : [await vlm.visual(image)],
  };
}

/** A query behind a context, which stands where pictures begin: after the token that begins every input. */
export async function behind(vlm: Vlm, context: Context, { prompt, image, target }: Asked): Promise<Placed> {
  const own = vlm.layout(prompt, image !== undefined, target);
  const start = vlm.visualStart;
  const ids = [...own.ids.slice(0, start), ...context.ids, ...own.ids.slice(start)];
  const limit = vlm.decoder.maxPositions;
  if (ids.length > limit)
    throw new Error(
      `the query and what stands before it have ${ids.length} tokens; this model takes at most ${limit}: make the text before it shorter`,
    );
  return {
    ids,
    pictures: [...context.pictures, ...(image === undefined ? [] : [await vlm.visual(image)])],
    sequence: { ids, visualSpan: undefined, promptEnd: own.promptEnd + context.ids.length, targetIds: own.targetIds },
  };
}

/** Joins contexts in their order. */
export function joined(contexts: readonly Context[]): Context {
  return { ids: contexts.flatMap(({ ids }) => ids), pictures: contexts.flatMap(({ pictures }) => pictures) };
}

/** Feeds that put the pictures of a batch in their places: `placed.visual` [b, l, d], and `placed.words` [b, l, 1], 1 where a word stands. */
export function placedFeeds(vlm: Vlm, batch: Batch, pictures: readonly (readonly Tensor<'float32'>[])[]): Rewrite['feeds'] {
  const d = vlm.decoder.hidden;
  const { length, sequences } = batch;
  const visual = new Float32Array(sequences.length * length * d);
  const words = new Float32Array(sequences.length * length).fill(1);
  sequences.forEach(({ ids }, n) => {
    const rows = pictures[n]!.flatMap(({ data }) =>
      Array.from({ length: data.length / d }, (_, i) => data.subarray(i * d, i * d + d)),
    );
    let next = 0;
    ids.forEach((id, i) => {
      if (id >= 0) return;
      const row = rows[next++];
      if (row === undefined) throw new Error(`input ${n} has places for more pictures than it was given`);
      visual.set(row, (n * length + i) * d);
      words[n * length + i] = 0;
    });
    if (next !== rows.length)
      throw new Error(`input ${n} has ${next} places for the ${rows.length} visual tokens of its pictures`);
  });
  return {
    'placed.visual': f32(visual, [sequences.length, length, d]),
    'placed.words': f32(words, [sequences.length, length, 1]),
  };
}

/** embeddings ← words · embeddings + visual */
export function placedRewrite(vlm: Vlm, batch: Batch, pictures: readonly (readonly Tensor<'float32'>[])[]): Rewrite {
  return {
    key: 'placed pictures',
    patches: () =>
      new Map([
        [
          'embeddings',
          (x) => {
            const [b, l, d] = x.shape as [string, string, number];
            return add(mul(x, input('placed.words', [b, l, 1])), input('placed.visual', [b, l, d]));
          },
        ],
      ]),
    replace: new Map(),
    feeds: placedFeeds(vlm, batch, pictures),
  };
}

/** Long inputs: few at a time. */
const BATCH = 8;

async function inBatches<T>(
  vlm: Vlm,
  placed: readonly Placed[],
  run: (batch: Batch, rewrite: Rewrite, rows: readonly number[]) => Promise<readonly T[]>,
): Promise<T[]> {
  const out = new Array<T>(placed.length);
  const sequences = placed.map(({ sequence }) => sequence);
  for (const rows of batchRows(sequences, Math.min(BATCH, vlm.batchLimit))) {
    const some = rows.map((i) => placed[i]!);
    const batch = vlm.batchVisual(
      some.map(({ sequence }) => sequence),
      some.map(() => undefined),
    );
    const rewrite = placedRewrite(
      vlm,
      batch,
      some.map(({ pictures }) => pictures),
    );
    (await run(batch, rewrite, rows)).forEach((result, n) => {
      out[rows[n]!] = result;
    });
  }
  return out;
}

export function answerPlaced(vlm: Vlm, placed: readonly Placed[]): Promise<TargetAnswer[]> {
  return inBatches(vlm, placed, async (batch, rewrite) => {
    const rows = targetRows(batch);
    const segment = { from: 0, to: vlm.decoder.layers, outputs: ['logits'], rows: true };
    const { logits } = await vlm.run(segment, batch, { rows: i64(rows, [rows.length]) }, rewrite);
    return readAnswers(batch.sequences, logits as Tensor<'float32'>);
  });
}

export function generatePlaced(
  vlm: Vlm,
  placed: readonly Placed[],
  options: GenerateOptions = {},
): Promise<{ text: string; tokenIds: number[] }[]> {
  return inBatches(vlm, placed, async (batch, rewrite, rows) => {
    const answers = await generate(vlm, batch, { ...forRows(options, rows), rewrite });
    return answers.map((tokenIds) => ({ tokenIds, text: vlm.codec.decode(tokenIds).trim() }));
  });
}
