/** Our side of the bench: a LLaVA-shaped random model, four records, and the three pieces of work that are timed. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { visualAttribution } from '../src/attribution/visual-attribution.ts';
import { padStates } from '../src/editors/context/states.ts';
import { initialAdapter } from '../src/editors/vead/adapter.ts';
import { influenceTargets, type PreparedRecord, Preparer } from '../src/editors/vead/prepare.ts';
import { stepFeeds, type VeadConfig, veadTrainer } from '../src/editors/vead/train.ts';
import { veadConfig } from '../src/editors/vead/vead.ts';
import { writeSafetensors } from '../src/files/safetensors.ts';
import { f32, i64, type Tensor } from '../src/graph/dtype.ts';
import type { EditRecord } from '../src/input/records.ts';
import { usualTokens } from '../src/models/architecture.ts';
import type { Batch } from '../src/models/batch.ts';
import { loadModel } from '../src/models/load.ts';
import { visualPlaces } from '../src/models/sequence.ts';
import type { Vlm } from '../src/models/vlm.ts';
import type { Trainer } from '../src/nn/trainer.ts';
import { Random } from '../src/random.ts';
import { randomPicture, type Sizes, writeRandomLlava } from '../test/tiny-model.ts';

/** The shape that the paper's code was timed on. */
export const benchSizes: Partial<Sizes> = {
  hidden: 512,
  layers: 12,
  heads: 8,
  keyHeads: 8,
  mlp: 1376,
  vocabulary: 4000,
  positions: 1024,
  visionHidden: 64,
  visionLayers: 1,
  side: 24,
  patch: 4,
  seed: 'bench',
};
export const insertLayer = 6;
const insert = insertLayer;
const traced = [7, 8, 9, 10];
const draws = 1;
/** which sample feeds the influence losses: 2 is the rephrased image, whose visual tokens differ from the edit's */
const choice = 2;

export interface Ours {
  vlm: Vlm;
  config: VeadConfig;
  threads: number;
  /** logits of four inputs at every position; the mean of their absolute values */
  forward(): Promise<number>;
  step(): Promise<{ loss: number; gradientNorm: number }>;
  /** c [b, t] at the sampled tokens */
  traces(): Promise<Float32Array>;
  /** c of every visual token of the four records, as training prepares it once */
  allTraces(): Promise<void>;
  /** visual attribution of one layer: every visual token, 10 draws */
  attribution(): Promise<void>;
  /** writes what the other side reads; returns its request to load it */
  share(dir: string): Promise<Record<string, unknown>>;
  release(): Promise<void>;
}

const words = ['cat', 'owl', 'cow', 'tree'];

export async function writeRecords(dir: string, count: number): Promise<EditRecord[]> {
  mkdirSync(dir, { recursive: true });
  const picture = async (name: string): Promise<string> => {
    const { width, height, data } = randomPicture(name, 96);
    const path = join(dir, `${name}.png`);
    await sharp(data, { raw: { width, height, channels: 3 } }).toFile(path);
    return path;
  };
  const cue = ' The answer is:';
  return Promise.all(
    words.slice(0, count).map(async (word, index): Promise<EditRecord> => {
      const [image, other, unrelated] = await Promise.all(['edit', 'same', 'other'].map((kind) => picture(`${kind}-${index}`)));
      const request = { image: image!, prompt: `What is in the middle?${cue}`, target: `a ${word}` };
      return {
        index,
        request,
        queries: {
          reliability: request,
          textGenerality: { ...request, prompt: `What can be seen in the middle?${cue}` },
          modalGenerality: { ...request, image: other! },
          textLocality: { image: null, prompt: 'What colour is the sky?', target: 'blue' },
          modalLocality: {
            image: unrelated!,
            prompt: `How many things are there?${cue}`,
            target: `a ${words[(index + 1) % words.length]}`,
          },
        },
      };
    }),
  );
}

/** @param count of records in a batch, 1 to 4 */
export async function openOurs(dir: string, threads: number, count: number): Promise<Ours> {
  const vlm = loadModel(writeRandomLlava(join(dir, 'model'), benchSizes), { threads });
  const config: VeadConfig = {
    ...veadConfig(vlm, { layer: insert, steps: 1000 }),
    traced,
    draws,
    hint: { bias: 0, until: 0, end: 0 },
    clip: null,
    valueCopy: false,
  };
  const shape = { hidden: vlm.decoder.hidden, width: config.width, heads: config.heads, influenceWidth: config.influenceWidth };
  const weights = initialAdapter(shape, new Random('bench/adapter'));
  const records = await writeRecords(join(dir, 'images'), count);
  // Influence targets are timed by themselves, so the preparation leaves them out.
  const prepared = await new Preparer(vlm, records, { ...config, traced: [] }, new Random('bench')).get(records.map((_, i) => i));
  const random = new Random('bench/step');
  const v = usualTokens(vlm.architecture);
  const sampled = random.shuffle(Array.from({ length: v }, (_, i) => i)).slice(0, config.sampled);
  const trace = traceInputs(vlm, prepared, sampled, random);
  const c = await influenceTargets(vlm, insert, traced, trace.edit, trace.sample, trace.tokens, trace.noise);
  const feeds = stepFeeds(vlm, prepared, { choice, sampled }, 0, c);
  const batch = await forwardBatch(vlm, records);
  let trainer: Trainer | undefined;
  return {
    vlm,
    config,
    threads,
    async forward() {
      const { data } = await vlm.logits(batch);
      let total = 0;
      for (const x of data) total += Math.abs(x);
      return total / data.length;
    },
    async step() {
      trainer ??= await veadTrainer(vlm, config, shape, weights, threads);
      return trainer.run(feeds, config.rate);
    },
    traces: () => influenceTargets(vlm, insert, traced, trace.edit, trace.sample, trace.tokens, trace.noise),
    async allTraces() {
      const all = traceInputs(
        vlm,
        prepared,
        Array.from({ length: v }, (_, i) => i),
        random,
      );
      await influenceTargets(vlm, insert, traced, all.edit, all.sample, all.tokens, all.noise);
    },
    async attribution() {
      const one = await vlm.batch([batch.sequences[0]!]);
      await visualAttribution(vlm, one, { layer: insert, protocol: 'paper', draws: 10, random: new Random('bench') });
    },
    async share(to) {
      const path = join(to, 'feeds.safetensors');
      const embeddings = (await vlm.run({ from: 0, to: 0, read: ['decoder.in'] }, batch))['decoder.in']!;
      writeSafetensors(path, {
        ...feeds,
        ...Object.fromEntries([...weights].map(([name, t]) => [`w:${name}`, t])),
        ...Object.fromEntries([...trace.noise].map(([layer, t]) => [`trace.noise.${layer}`, t])),
        'trace.edit': padStates(vlm, trace.edit).feeds.hidden!,
        'trace.sample': padStates(vlm, trace.sample).feeds.hidden!,
        'trace.ends': i64(
          trace.edit.map((s) => s.sequence.promptEnd),
          [trace.edit.length],
        ),
        'trace.tokens': i64(trace.tokens, [trace.tokens.length]),
        'forward.embeddings': embeddings,
      });
      return {
        do: 'load',
        model: join(dir, 'model', 'model.safetensors'),
        feeds: path,
        threads,
        config: {
          layers: vlm.decoder.layers,
          heads: vlm.decoder.heads,
          headWidth: vlm.decoder.headWidth,
          epsilon: 1e-5,
          positions: vlm.decoder.maxPositions,
          adapterHeads: config.heads,
          rate: config.rate,
          insert,
          traced,
          batch: records.length,
          visualStart: visualPlaces(batch.sequences[0]!)[0]!,
          visualTokens: v,
          lambda: config.losses.up,
        },
      };
    },
    async release() {
      await trainer?.release();
      await vlm.release();
    },
  };
}

function traceInputs(vlm: Vlm, prepared: readonly PreparedRecord[], sampled: readonly number[], random: Random) {
  const d = vlm.decoder.hidden;
  const noise = new Map(
    traced.map((layer): [number, Tensor<'float32'>] => {
      const shape = [prepared.length, sampled.length, draws, d];
      return [layer, f32(random.fork(`noise ${layer}`).normals(prepared.length * sampled.length * draws * d, 0.7), shape)];
    }),
  );
  return {
    edit: prepared.map((p) => p.samples[0]!),
    sample: prepared.map((p) => p.samples[choice]!),
    tokens: sampled.map((i) => visualPlaces(prepared[0]!.samples[0]!.sequence)[i]!),
    noise,
  };
}

async function forwardBatch(vlm: Vlm, records: readonly EditRecord[]): Promise<Batch> {
  return vlm.batch(
    records.map((r, i) => vlm.layout({ prompt: r.request.prompt, image: randomPicture(`forward-${i}`, 96) }, r.request.target)),
  );
}
