/**
 * What an edit does to answers that it is not about, beyond the localities of its record: its question about other pictures, and the captions of these
 * pictures.
 */
import { join } from 'node:path';
import { writeFileAtomic } from '../files/atomic.ts';
import { decodeImage } from '../input/image/decode.ts';
import { type EditRecord, openRecords } from '../input/records.ts';
import { type TargetAnswer, unedited } from '../models/answer.ts';
import type { Subject } from './asking.ts';
import { closeJob, type Job, openJob } from './job.ts';
import { fileId } from './manifest.ts';
import { type AskOptions, openRequests, stopIfAsked } from './queries.ts';

export interface Collateral {
  readonly edits: number;
  /** other pictures that each edit's question is asked about */
  readonly pictures: number;
  /** share of the free answers about them that stay what they were */
  readonly sameQuestion: number;
  /** of the unedited model's own captions of these pictures: e to the mean of −log p over all tokens, before and after an edit */
  readonly perplexity: { readonly before: number; readonly after: number };
}

const pictures = 8;

const perplexity = (answers: readonly TargetAnswer[]): number => {
  const logs = answers.flatMap(({ logProbs }) => logProbs);
  return Math.exp(-logs.reduce((sum, p) => sum + p, 0) / logs.length);
};

/**
 * @param records whose edits are made, each alone
 * @param captions requests for a caption: the first eight give the pictures and the words that ask
 * @throws Error when there are fewer than eight captions
 */
export async function measureCollateral(
  { vlm, editor, weights, settings }: Subject,
  records: readonly EditRecord[],
  captions: readonly EditRecord[],
  {
    maxNewTokens = 32,
    signal,
    batch = 16,
    onProgress,
  }: AskOptions & { batch?: number; onProgress?: (done: number) => void } = {},
): Promise<Collateral> {
  if (captions.length < pictures)
    throw new Error(
      `collateral is measured on ${pictures} pictures with captions, and there are ${captions.length} records of them`,
    );
  const others = await Promise.all(
    captions.slice(0, pictures).map(async ({ request: { image, prompt } }) => ({ image: await decodeImage(image), prompt })),
  );
  const plain = unedited(vlm);
  const told = await plain.generate(others, { maxNewTokens });
  // A model that says nothing of a picture has no caption of it.
  const captioned = others.flatMap((asked, i) =>
    told[i]!.text.trim() === '' ? [] : [{ ...asked, target: told[i]!.text.trim() }],
  );
  if (captioned.length === 0) throw new Error(`${vlm.name} gives no captions, so they have no perplexity`);
  const after: TargetAnswer[] = [];
  let kept = 0;
  for (let at = 0; at < records.length; at += batch) {
    const requests = await openRequests(records.slice(at, at + batch));
    const edits = await editor.edit(vlm, requests, weights, settings);
    stopIfAsked(signal);
    const same = requests.flatMap(({ prompt }) => others.map(({ image }) => ({ image, prompt })));
    const before = await plain.generate(same, { maxNewTokens });
    const edited = editor.with(
      vlm,
      edits.flatMap((edit) => others.map(() => edit)),
    );
    const answers = await edited.generate(same, { maxNewTokens });
    kept += answers.filter(({ text }, i) => text === before[i]!.text).length;
    const described = editor.with(
      vlm,
      edits.flatMap((edit) => captioned.map(() => edit)),
    );
    after.push(...(await described.answerTargets(edits.flatMap(() => captioned))));
    stopIfAsked(signal);
    onProgress?.(at + requests.length);
  }
  return {
    edits: records.length,
    pictures,
    sameQuestion: kept / (records.length * pictures),
    perplexity: { before: perplexity(await plain.answerTargets(captioned)), after: perplexity(after) },
  };
}

export const collateralFile = 'collateral.json';

/** Measures the edits of an evaluation, and writes what was found to its folder. @param captions E-IC records, with pictures in the evaluation's folder */
export async function evaluationCollateral(
  job: Job,
  captions: string,
  { out, threads, signal }: { out: string; threads?: number | undefined; signal?: AbortSignal | undefined },
): Promise<Collateral> {
  const open = await openJob(job, { threads, check: false });
  try {
    const { records } = openRecords(captions, job.images, { limit: pictures });
    const options = { maxNewTokens: job.maxNewTokens, batch: job.batch, ...(signal === undefined ? {} : { signal }) };
    const found = await measureCollateral(open.subject, open.batches.flat(), records, options);
    writeFileAtomic(join(out, collateralFile), `${JSON.stringify({ ...found, captions: fileId(captions) }, null, 2)}\n`);
    return found;
  } finally {
    await closeJob(open);
  }
}
