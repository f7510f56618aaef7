/**
 * `npm run bench:evaluation`: asking all queries of one edit, before and after it, by shared states (src/models/shared-states.ts), against full
 * forwards of every (query, before or after) by itself. On the LLaVA-shaped random model of `npm run bench`, or on `--model M --data F --images DIR`.
 * Both ways take turns and must give the same answers.
 *   --rounds N (default 3)   --threads N (default 2)   --records N (default 4)   --json
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type EditRecord, loadRecords } from '../src/data/records.ts';
import { modelId } from '../src/editors/editor.ts';
import { initialAdapter } from '../src/editors/vead/adapter.ts';
import { vead, veadConfig, veadRewrite } from '../src/editors/vead/vead.ts';
import { f32 } from '../src/graph/dtype.ts';
import { decodeImage } from '../src/image/decode.ts';
import { type Query, readAnswers, targetRows, unedited } from '../src/models/answer.ts';
import { loadModel } from '../src/models/load.ts';
import type { Rewrite, Vlm } from '../src/models/vlm.ts';
import { Random } from '../src/random.ts';
import { writeRandomLlava } from '../test/tiny-model.ts';
import { benchSizes, insertLayer, writeRecords } from './ours.ts';

const { values: given } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    records: { type: 'string', default: '4' },
    model: { type: 'string' },
    data: { type: 'string' },
    images: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const threads = Number(given.threads);
const count = Number(given.records);
const dir = mkdtempSync(join(tmpdir(), 'visedit-bench-'));

const load = async ({ image, ...rest }: EditRecord['request']): Promise<Query> => ({
  ...rest,
  image: image === null ? undefined : await decodeImage(image),
});

/** log probabilities and arg-max tokens of one query by one whole forward, picture included */
async function alone(vlm: Vlm, { image, prompt, target }: Query, rewrite?: Rewrite): Promise<number[]> {
  const sequence = vlm.layout(prompt, image !== undefined, target);
  const visual = image === undefined ? undefined : await vlm.visualOf(vlm.processor(image));
  const batch = vlm.batchVisual([sequence], [visual]);
  const logits = await vlm.logits(batch, rewrite);
  const n = vlm.decoder.vocabulary;
  const rows = targetRows(batch);
  const chosen = new Float32Array(rows.length * n);
  rows.forEach((row, i) => {
    chosen.set((logits.data as Float32Array).subarray(row * n, (row + 1) * n), i * n);
  });
  const [answer] = readAnswers(batch, f32(chosen, [rows.length, n]));
  return [...answer!.logProbs, ...answer!.predictedIds];
}

try {
  const own = given.model !== undefined;
  const open = (): Vlm => loadModel(own ? given.model! : writeRandomLlava(join(dir, 'model'), benchSizes), { threads });
  const model = open();
  const records = own
    ? loadRecords(given.data!, given.images!).slice(0, count)
    : await writeRecords(join(dir, 'images'), Math.min(4, count));
  const config = veadConfig(model, own ? {} : { layer: insertLayer });
  const shape = {
    hidden: model.decoder.hidden,
    width: config.width,
    heads: config.heads,
    influenceWidth: config.influenceWidth,
  };
  const weights = {
    editor: 'vead',
    model: modelId(model),
    settings: { layer: config.layer, heads: config.heads },
    tensors: initialAdapter(shape, new Random('bench/adapter')),
  };
  let shared = Number.POSITIVE_INFINITY;
  let naive = Number.POSITIVE_INFINITY;
  let worst = 0;
  let forwards = 0;
  for (let round = 0; round <= Number(given.rounds); round++) {
    let sharedNow = 0;
    let naiveNow = 0;
    forwards = 0;
    for (const record of records) {
      // Pictures are decoded anew: nothing of an earlier turn is kept for them.
      const pictures = new Map<string, Query['image']>();
      const queries = await Promise.all(
        Object.values(record.queries)
          .filter(({ image }) => image !== null)
          .map(async (query): Promise<Query> => {
            if (!pictures.has(query.image!)) pictures.set(query.image!, (await load(query as EditRecord['request'])).image);
            return { prompt: query.prompt, target: query.target, image: pictures.get(query.image!) };
          }),
      );
      const request = { ...queries[0]!, image: queries[0]!.image! };
      model.forget();
      const first = performance.now();
      const before = await unedited(model, config.layer).answerTargets(queries);
      const [edit] = await vead.edit(model, [request], weights);
      const after = await vead.with(model, [edit!]).answerTargets(queries);
      sharedNow += performance.now() - first;
      const second = performance.now();
      const plain: number[][] = [];
      for (const query of queries) plain.push(await alone(model, query));
      for (const query of queries) plain.push(await alone(model, query, veadRewrite(model, [edit!])));
      naiveNow += performance.now() - second;
      forwards += plain.length;
      [...before, ...after].forEach(({ logProbs, predictedIds }, i) => {
        [...logProbs, ...predictedIds].forEach((x, j) => {
          worst = Math.max(worst, Math.abs(x - plain[i]![j]!));
        });
      });
    }
    // The first turn compiles.
    if (round === 0) continue;
    shared = Math.min(shared, sharedNow / records.length / 1000);
    naive = Math.min(naive, naiveNow / records.length / 1000);
  }
  await model.release();
  const result = {
    model: own ? given.model : 'random LLaVA, d 512, 12 layers, 576 visual tokens',
    layer: config.layer,
    threads,
    records: records.length,
    forwards: forwards / records.length,
    shared,
    naive,
    ratio: naive / shared,
    largestDifference: worst,
  };
  process.stdout.write(
    given.json
      ? `${JSON.stringify(result)}\n`
      : `${result.model}, layer ${result.layer}, ${threads} threads: one edit and its ${result.forwards} questions about pictures (before and after)\n  ${result.forwards} full forwards  ${naive.toFixed(3)} s\n  shared states    ${shared.toFixed(3)} s, ${result.ratio.toFixed(2)} times faster; largest difference ${worst.toExponential(1)}\n`,
  );
} finally {
  rmSync(dir, { recursive: true, force: true });
}
