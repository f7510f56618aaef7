/**
 * Table 2 of the paper: where VEAD works best. One adapter is trained and evaluated for each insert layer; the module contributions of the
 * unedited model (Fig. 1) stand beside, since the paper derives the layer from them.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { averageModuleContribution } from '../attribution/dataset-average.ts';
import { writeFileAtomic } from '../checkpoints/atomic.ts';
import { loadRecords } from '../data/records.ts';
import { buildWorld } from '../data/world/build.ts';
import { vead } from '../editors/vead/vead.ts';
import type { FiveMetrics } from '../evaluation/metrics.ts';
import { runEvaluation } from '../evaluation/runner.ts';
import { trainEditor, weightsFile } from '../evaluation/training.ts';
import { lineChart, moduleBars, savePicture } from '../figures/index.ts';
import { decodeImage } from '../image/decode.ts';
import { loadModel } from '../models/load.ts';

export interface Table2Options {
  model: string;
  /** a folder that `world build` wrote; drawn into `out` when absent */
  world?: string | undefined;
  out: string;
  seed: number;
  /** insert layers; default: all that have a layer after them */
  layers?: readonly number[] | undefined;
  /** training steps per layer, and records evaluated */
  steps: number;
  limit: number;
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
  log: (text: string) => void;
  onStep?: (layer: number, step: number, steps: number, loss: number) => void;
}

export interface Table2Row extends FiveMetrics {
  readonly layer: number;
  readonly count: number;
}

export interface Table2 {
  readonly rows: readonly Table2Row[];
  /** mean contribution per layer of the unedited model to the answer it gives */
  readonly contributions: { readonly attn: readonly number[]; readonly mlp: readonly number[] };
  readonly command: string;
}

/** Resumes by itself: layers that are trained and evaluated in `out` are not done again. */
export async function table2(options: Table2Options, command: string): Promise<Table2> {
  const { model, out, seed, steps, limit, log, signal, threads } = options;
  const world = options.world ?? join(out, 'world');
  if (!existsSync(join(world, 'vqa_train.json')))
    await buildWorld({ seed, out: world, sizes: { captionTrain: 0, captionTest: 0 } });
  const data = { train: join(world, 'vqa_train.json'), test: join(world, 'vqa_test.json'), images: join(world, 'images') };
  const vlm = loadModel(model, threads === undefined ? {} : { threads });
  const all = Array.from({ length: vlm.decoder.layers - 1 }, (_, i) => i);
  const layers = options.layers ?? all;
  const records = loadRecords(data.test, data.images).slice(0, limit);
  log('Attributing the unedited answers ...');
  const inputs = await Promise.all(
    records.slice(0, 200).map(async ({ request }) => ({ prompt: request.prompt, image: await decodeImage(request.image) })),
  );
  const { contribution } = await averageModuleContribution(vlm, inputs);
  await vlm.release();
  const rows: Table2Row[] = [];
  for (const layer of layers) {
    const dir = join(out, `layer-${layer}`);
    log(`Insert layer ${layer} ...`);
    if (!existsSync(join(dir, 'train', weightsFile)) || !existsSync(join(dir, 'trained'))) {
      await trainEditor(
        { model, editor: vead, data: data.train, images: data.images },
        {
          out: join(dir, 'train'),
          seed,
          layer,
          steps,
          threads,
          signal,
          command,
          resume: existsSync(join(dir, 'train')),
          onStep: (p) => options.onStep?.(layer, p.step, p.steps, p.loss),
        },
      );
      writeFileAtomic(join(dir, 'trained'), '');
    }
    const { evaluation } = await runEvaluation(
      {
        model,
        editor: vead.id,
        weights: join(dir, 'train', weightsFile),
        data: data.test,
        images: data.images,
        limit,
        batch: 16,
        maxNewTokens: 8,
      },
      { out: join(dir, 'evaluation'), resume: existsSync(join(dir, 'evaluation')), command, signal },
    );
    const { reliability, textGenerality, modalGenerality, textLocality, modalLocality, average, count } = evaluation;
    rows.push({ layer, reliability, textGenerality, modalGenerality, textLocality, modalLocality, average, count });
  }
  const result: Table2 = { rows, contributions: contribution, command };
  writeFileAtomic(join(out, 'table2.json'), `${JSON.stringify({ ...result, seed, steps, limit, model }, null, 2)}\n`);
  const series = (label: string, of: (row: Table2Row) => number) => ({ label, x: rows.map((r) => r.layer), y: rows.map(of) });
  savePicture(
    join(out, 'table2.svg'),
    await lineChart({
      series: [
        series('average', (r) => r.average),
        series('reliability', (r) => r.reliability),
        series('modal generality', (r) => r.modalGenerality),
        series('modal locality', (r) => r.modalLocality),
      ],
      xTitle: 'Insert layer',
      yTitle: 'Token accuracy',
      yFormat: 'percent',
      points: true,
      title: `VEAD on ${model} by insert layer`,
    }),
  );
  savePicture(
    join(out, 'module-contributions.svg'),
    await moduleBars({ layers: contribution.attn.map((_, i) => i), ...contribution, title: `Module contributions of ${model}` }),
  );
  return result;
}
