/**
 * The unedited model's answers, computed once per record. With a folder they are kept on disk too, so that all editors and seeds that are
 * evaluated on one model, file of records and protocol ask the unedited model once.
 */

import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { makeFolder, writeFileAtomic } from '../files/atomic.ts';
import { readJsonLines } from '../files/schema.ts';
import { type EditRecord, queryKinds } from '../input/records.ts';
import { unedited } from '../models/answer.ts';
import type { Vlm } from '../models/vlm.ts';
import { type Answer, type AskedKind, hardKinds } from './metrics.ts';
import { type Answers, type AskOptions, askAll, type Loaded } from './queries.ts';
import { Appender } from './store.ts';

export class Unedited {
  readonly #known = new WeakMap<EditRecord, Answers>();

  /**
   * @param share the decoder layer whose states these questions share with those under an edit; see `answerTargets`
   * @param store answers kept on disk; they serve every editor, so no layer is shared then
   */
  constructor(
    readonly vlm: Vlm,
    readonly share?: number,
    readonly store?: AnswerStore,
  ) {}

  async get(batch: readonly Loaded[], options: AskOptions): Promise<Answers[]> {
    if (batch.some(({ record }) => !this.#has(record))) {
      // The whole batch: padding moves the last bits, so its answers must not depend on which of them a stop has left.
      const answers = await askAll(unedited(this.vlm, this.store === undefined ? this.share : undefined), batch, options);
      batch.forEach(({ record }, i) => {
        this.#known.set(record, answers[i]!);
      });
      this.store?.append(batch.map(({ record }, i) => ({ index: record.index, answers: answers[i]! })));
    }
    return batch.map(({ record }) => this.#known.get(record)!);
  }

  #has(record: EditRecord): boolean {
    if (this.#known.has(record)) return true;
    const stored = this.store?.get(record.index);
    if (stored !== undefined) this.#known.set(record, stored);
    return stored !== undefined;
  }
}

const ids = z.array(z.int());
const storedAnswers = z.object({
  index: z.int(),
  answers: z.array(
    z.tuple([
      z.enum([...queryKinds, ...hardKinds]),
      z.looseObject({
        forced: z.looseObject({ targetIds: ids, predictedIds: ids, logProbs: z.array(z.number()) }),
        text: z.string(),
      }),
    ]),
  ),
}) satisfies z.ZodType<{ index: number; answers: [AskedKind, Answer][] }>;

interface Line {
  readonly index: number;
  readonly answers: Answers;
}

/** Answers of one model to one choice of records under one protocol: a folder with a file of JSON lines for each process that wrote there. */
export class AnswerStore {
  readonly #known = new Map<number, Answers>();
  readonly #path: string;
  #file: Appender | undefined;

  /** @param identity all that the answers depend on; another identity has another folder */
  constructor(folder: string, identity: unknown) {
    const text = JSON.stringify(identity, null, 2);
    const dir = join(folder, createHash('sha256').update(text).digest('hex').slice(0, 16));
    makeFolder(dir);
    if (!existsSync(join(dir, 'identity.json'))) writeFileAtomic(join(dir, 'identity.json'), `${text}\n`);
    for (const name of readdirSync(dir).filter((file) => file.endsWith('.jsonl'))) {
      // Answers of a line that a kill cut off are asked for again.
      for (const { index, answers } of readJsonLines(join(dir, name), storedAnswers, 'skip'))
        this.#known.set(index, new Map(answers));
    }
    this.#path = join(dir, `${process.pid}-${Date.now()}.jsonl`);
  }

  get(index: number): Answers | undefined {
    return this.#known.get(index);
  }

  append(lines: readonly Line[]): void {
    this.#file ??= new Appender(this.#path);
    this.#file.append(lines.map(({ index, answers }) => ({ index, answers: [...answers] })));
    for (const { index, answers } of lines) this.#known.set(index, answers);
  }

  close(): void {
    this.#file?.close();
  }
}
