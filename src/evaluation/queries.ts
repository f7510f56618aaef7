/** The queries of a batch of records, with their pictures in memory, put to a model whatever it is. */

import type { EditRequest } from '../editors/editor.ts';
import { decodeImage } from '../input/image/decode.ts';
import type { EditRecord } from '../input/records.ts';
import type { RgbImage } from '../input/segments.ts';
import type { AnsweringModel, Query } from '../models/answer.ts';
import { Stopped } from '../nn/loop.ts';
import { type Answer, type AskedKind, askedOf } from './metrics.ts';

export interface AskOptions {
  /** longest free answer */
  maxNewTokens?: number;
  signal?: AbortSignal;
}

const defaultMaxNewTokens = 32;

/** A record with its pictures in memory. */
export interface Loaded {
  readonly record: EditRecord;
  readonly image: RgbImage;
  readonly asked: readonly { kind: AskedKind; query: Query }[];
}

export type Answers = ReadonlyMap<AskedKind, Answer>;

/** Pictures of a batch, each read once. */
export async function load(records: readonly EditRecord[]): Promise<Loaded[]> {
  const images = new Map<string, Promise<RgbImage>>();
  const read = (path: string): Promise<RgbImage> => {
    let image = images.get(path);
    if (image === undefined) {
      image = decodeImage(path);
      images.set(path, image);
    }
    return image;
  };
  return Promise.all(
    records.map(async (record) => {
      try {
        const asked = askedOf(record).map(async ({ kind, query: { image, prompt, target } }) => ({
          kind,
          query: { image: image === null ? undefined : await read(image), prompt, target },
        }));
        return { record, image: await read(record.request.image), asked: await Promise.all(asked) };
      } catch (error) {
        throw new Error(`record ${record.index}: ${(error as Error).message}`, { cause: error });
      }
    }),
  );
}

/** What records ask an editor for, with its picture in memory and no other. */
export const openRequests = (records: readonly EditRecord[]): Promise<EditRequest[]> =>
  Promise.all(
    records.map(async ({ index, request: { image, prompt, target } }) => {
      try {
        return { image: await decodeImage(image), prompt, target };
      } catch (error) {
        throw new Error(`record ${index}: ${(error as Error).message}`, { cause: error });
      }
    }),
  );

/** Answers of a model to flat queries, dealt out to their records again. */
export async function askAll(
  model: AnsweringModel,
  batch: readonly Loaded[],
  { maxNewTokens = defaultMaxNewTokens, signal }: AskOptions,
): Promise<Answers[]> {
  const queries = batch.flatMap(({ asked }) => asked.map(({ query }) => query));
  const forced = await model.answerTargets(queries);
  stopIfAsked(signal);
  const free = await model.generate(queries, { maxNewTokens });
  stopIfAsked(signal);
  let at = 0;
  return batch.map(
    ({ asked }) =>
      new Map(
        asked.map(({ kind }): [AskedKind, Answer] => {
          const answer = { forced: forced[at]!, text: free[at]!.text };
          at++;
          return [kind, answer];
        }),
      ),
  );
}

/** @throws Stopped */
export function stopIfAsked(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new Stopped('stopped before the batch was finished');
}

export const requestOf = ({ record: { request }, image }: Loaded): EditRequest => ({
  image,
  prompt: request.prompt,
  target: request.target,
});
