/** The steps of `visedit demo`, each by the same functions that the other commands use. */
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { buildWorld } from '../../lab/world/build.ts';
import { moduleContribution } from '../../src/attribution/module-contribution.ts';
import { visualAttribution } from '../../src/attribution/visual-attribution.ts';
import { readEditorWeights, writeEdit } from '../../src/editors/files.ts';
import { shippedWeights } from '../../src/editors/shipped.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { evaluateRecords } from '../../src/evaluation/runner.ts';
import { beforeAfter, heatMaps, moduleBars, savePicture } from '../../src/figures/index.ts';
import { makeFolder, writeFileAtomic } from '../../src/files/atomic.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords, queryKinds, type RecordQuery } from '../../src/input/records.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { Random } from '../../src/random.ts';
import type { CommandContext } from './frame/context.ts';

export interface TourQuery {
  kind: string;
  image: string | null;
  prompt: string;
  wanted: string;
  before: string;
  after: string;
  passed: boolean;
}

export interface TourResult {
  edit: { prompt: string; before: string; target: string; milliseconds: number };
  queries: TourQuery[];
  metrics: Record<string, number> & { count: number };
  pictures: string[];
}

const labels: Record<(typeof queryKinds)[number], string> = {
  reliability: 'reliability',
  textGenerality: 'text generality',
  modalGenerality: 'modal generality',
  textLocality: 'text locality',
  modalLocality: 'modal locality',
};

const sample = 48;

export async function tour({ out, seed, context }: { out: string; seed: number; context: CommandContext }): Promise<TourResult> {
  makeFolder(out);
  const world = join(out, 'world');
  rmSync(world, { recursive: true, force: true });
  context.log('Drawing a few scenes of the mini world ...');
  await buildWorld({ seed, out: world, sizes: { vqaTrain: 0, vqaTest: sample, captionTrain: 0, captionTest: 0 } });
  const records = loadRecords(join(world, 'vqa_test.json'), join(world, 'images'));

  context.log('Opening mini-llava and its visual edit adapter ...');
  const vlm = loadModel('mini-llava');
  const weights = readEditorWeights(shippedWeights('mini-llava', 'vead', 'vqa'));
  const plain = unedited(vlm);
  const { record, before } = await wrongAnswer(plain, records);
  const image = await decodeImage(record.request.image);
  const { prompt, target } = record.request;
  copyFileSync(record.request.image, join(out, 'picture.png'));

  context.log('Attributing the answer ...');
  const layers = Array.from({ length: vlm.decoder.layers }, (_, i) => i);
  const batch = await vlm.batch([vlm.layout({ prompt, image })]);
  const [modules] = await moduleContribution(vlm, batch);
  const keyToken = vlm.codec.decode([modules!.tokenId]).trim();
  savePicture(
    join(out, 'module-contributions.svg'),
    await moduleBars({
      layers,
      ...modules!.contribution,
      keyToken,
      title: 'Contribution of module outputs',
      markLayer: weights.settings.layer as number,
    }),
  );
  const maps = [];
  for (const layer of layers) {
    const map = await visualAttribution(vlm, batch, { layer, random: new Random(`${seed}/demo/${layer}`) });
    const drawn = map.carriesWeight ? { values: map.values } : { values: map.values.map(() => 0), note: 'no weight' };
    maps.push({ label: `Layer ${layer}`, ...drawn });
  }
  savePicture(
    join(out, 'visual-attribution.svg'),
    await heatMaps({
      rows: [{ image, grid: vlm.processor(image).grid, maps, prompt, answer: before }],
      title: 'Where each layer looks',
      normalise: 'each',
      perLine: 3,
    }),
  );

  context.log(`Editing: "${prompt}" must become "${target}" ...`);
  const started = performance.now();
  const [edit] = await vead.edit(vlm, [{ image, prompt, target }], weights);
  const milliseconds = Math.round(performance.now() - started);
  writeEdit(join(out, 'edit.safetensors'), edit!, { bundle: true });
  const queries = await compare(plain, vead.with(vlm, [edit!]), record);
  const pictures = new Map<string, RgbImage>();
  for (const q of queries) if (q.image !== null) pictures.set(q.image, await decodeImage(q.image));
  savePicture(
    join(out, 'before-after.svg'),
    await beforeAfter({
      title: 'One edit, five kinds of query',
      edit: { image, prompt, target },
      rows: queries.map((q) => ({ ...q, image: q.image === null ? undefined : pictures.get(q.image)! })),
    }),
  );

  context.log(`Measuring on ${records.length} edits ...`);
  const { metrics } = await evaluateRecords(vlm, vead, weights, records);
  await vlm.release();
  const result: TourResult = {
    edit: { prompt, before, target, milliseconds },
    queries,
    metrics,
    pictures: ['module-contributions.svg', 'visual-attribution.svg', 'before-after.svg'],
  };
  writeFileAtomic(join(out, 'demo.json'), `${JSON.stringify(result, null, 2)}\n`);
  return result;
}

type Asks = ReturnType<typeof unedited>;

const asked = async (query: RecordQuery): Promise<{ prompt: string; image?: RgbImage }> => ({
  prompt: query.prompt,
  ...(query.image === null ? {} : { image: await decodeImage(query.image) }),
});

/** The first correction that the model does get wrong. */
async function wrongAnswer(model: Asks, records: readonly EditRecord[]): Promise<{ record: EditRecord; before: string }> {
  const corrections = records.filter((r) => r.edit === 'correction');
  const answers = await model.generate(await Promise.all(corrections.map((r) => asked(r.request))));
  const at = corrections.findIndex((r, i) => answers[i]!.text !== r.request.target);
  if (at < 0) throw new Error('the model answers every test edit right already; choose another --seed');
  return { record: corrections[at]!, before: answers[at]!.text };
}

async function compare(before: Asks, after: Asks, record: EditRecord): Promise<TourQuery[]> {
  const list = await Promise.all(queryKinds.map((kind) => asked(record.queries[kind])));
  const [old, now] = [await before.generate(list), await after.generate(list)];
  return queryKinds.map((kind, i) => {
    const local = kind === 'textLocality' || kind === 'modalLocality';
    const wanted = local ? old[i]!.text : record.request.target;
    return {
      kind: labels[kind],
      image: record.queries[kind].image,
      prompt: record.queries[kind].prompt,
      wanted,
      before: old[i]!.text,
      after: now[i]!.text,
      passed: now[i]!.text === wanted,
    };
  });
}
