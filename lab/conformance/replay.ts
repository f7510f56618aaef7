/**
 * The reference's training run. It traces influence with the model that it trains: from the second step on, the edit of the step before is
 * still in place there, so the influence targets and the mapper's own losses read visual tokens under that edit. (With a model of its own
 * for tracing, as the paper trains and as `trainVead` does, they read the unedited ones; at the first step both are the same.)
 */

import { padStates, type Sample } from '../../src/editors/context/states.ts';
import type { Edit } from '../../src/editors/editor.ts';
import { type AdapterShape, influenceMapper } from '../../src/editors/vead/adapter.ts';
import { mapperLosses, objective } from '../../src/editors/vead/objective.ts';
import type { VeadConfig } from '../../src/editors/vead/train.ts';
import { veadRewrite } from '../../src/editors/vead/vead.ts';
import { add, f32, input, mean, mul, sigmoid, type Tensor } from '../../src/graph/index.ts';
import { rowsOf, spanFeeds } from '../../src/models/batch.ts';
import { visualPlaces } from '../../src/models/sequence.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Trainer } from '../../src/nn/trainer.ts';
import { Random } from '../../src/random.ts';
import { compile } from '../../src/runtime/node.ts';
import { tolerances } from './checks.ts';
import { firstGradients, type Values } from './trained-weights.ts';

/** Samples with the visual tokens that each has under its edit, at the insert layer. */
export async function underEdits(vlm: Vlm, layer: number, samples: readonly Sample[], edits: readonly Edit[]): Promise<Sample[]> {
  const d = vlm.decoder.hidden;
  const { batch, feeds } = padStates(vlm, samples);
  const rewrite = veadRewrite(edits);
  const site = `layers.${layer}.out`;
  const plan = { from: layer + 1, to: layer + 1, read: [site] };
  const given = { ...batch, feeds: { ...feeds, ...spanFeeds(batch.sequences, batch.length) } };
  const out = (await vlm.run(plan, given, {}, rewrite))[site]!.data as Float32Array;
  return samples.map(({ sequence, deep }, n) => ({ sequence, hidden: rowsOf(batch, n, out, d), deep }));
}

/** VEAD's training step whose mapper losses read the visual tokens that `mapperFeeds` gives. */
export function replayTrainer(
  vlm: Vlm,
  config: VeadConfig,
  shape: AdapterShape,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
): Promise<Trainer> {
  const { losses, layer, parts } = config;
  const answers = objective(vlm, layer, shape, { ...losses, up: 0, down: 0, attribution: 0 }, parts);
  const d = vlm.decoder.hidden;
  const end = input('mapper.end', ['e', d]);
  const [right, wrong] = ['mapper.right', 'mapper.wrong'].map((name) =>
    influenceMapper(answers.weights, shape, input(name, ['e', 't', d]), end),
  ) as [ReturnType<typeof influenceMapper>, ReturnType<typeof influenceMapper>];
  const { up, down, ima } = mapperLosses(right, wrong, input('target', ['e', 't']));
  const mapper = add(add(mul(up, losses.up), mul(down, losses.down)), mul(ima, losses.attribution));
  return Trainer.create({
    loss: add(answers.loss, mapper),
    metrics: { ...answers.metrics, up, down, ima, gateRight: mean(sigmoid(right)), gateWrong: mean(sigmoid(wrong)) },
    initial,
    rule: () => ({ rule: 'adam' }),
    compile,
    options: { threads: vlm.compileOptions.threads, weights: vlm.weights },
  });
}

/** What the mapper reads: visual tokens at the sampled places of a rel/gen and of a locality sample, and the edit's last prompt position. */
export function mapperFeeds(
  vlm: Vlm,
  edit: readonly Sample[],
  right: readonly Sample[],
  wrong: readonly Sample[],
  sampled: readonly number[],
): Record<string, Tensor> {
  const d = vlm.decoder.hidden;
  const rowsOf = (samples: readonly Sample[], rows: (sample: Sample) => readonly number[]): Float32Array => {
    const picked = samples.flatMap((sample) => rows(sample).map((row) => sample.hidden.subarray(row * d, (row + 1) * d)));
    const data = new Float32Array(picked.length * d);
    picked.forEach((row, i) => {
      data.set(row, i * d);
    });
    return data;
  };
  const visual = (samples: readonly Sample[]) =>
    f32(
      rowsOf(samples, ({ sequence }) => {
        const places = visualPlaces(sequence);
        return sampled.map((t) => places[t]!);
      }),
      [samples.length, sampled.length, d],
    );
  return {
    'mapper.right': visual(right),
    'mapper.wrong': visual(wrong),
    'mapper.end': f32(
      rowsOf(edit, ({ sequence }) => [sequence.promptEnd]),
      [edit.length, d],
    ),
  };
}

/** What a run of steps gives. */
export interface Outcome {
  /** of the first step */
  gradients: Values;
  weights: Values;
}

/** Feeds that are hidden states. */
const hiddenFeeds = ['hidden', 'signal', 'mapper.right', 'mapper.wrong', 'mapper.end'];

/**
 * The same steps again with hidden states that are off by a tenth of their tolerance, several times: what rounding could make of the run.
 * A ReLU whose input is next to zero turns, and the gradient jumps.
 */
export async function disturbedRuns(
  trainer: Trainer,
  initial: Outcome['weights'],
  steps: readonly Record<string, Tensor>[],
  rate: number,
  runs = 5,
): Promise<Outcome[]> {
  const start = new Map(
    [...trainer.state()].map(([name, t]) => {
      const weight = name.startsWith('w:') ? initial.get(name.slice(2)) : undefined;
      return [name, f32(weight ?? new Float32Array(t.data.length), t.shape)] as const;
    }),
  );
  const out: Outcome[] = [];
  for (let run = 0; run < runs; run++) {
    trainer.restore(0, start);
    let gradients: Values = new Map();
    for (const [s, feeds] of steps.entries()) {
      const random = new Random(`disturbed ${run}/${s}`);
      const moved = hiddenFeeds
        .filter((name) => name in feeds)
        .map((name) => {
          const { data, shape } = feeds[name] as Tensor<'float32'>;
          const noise = random.fork(name).normals(data.length, tolerances.hidden / 10);
          return [
            name,
            f32(
              data.map((x, i) => x + noise[i]!),
              shape,
            ),
          ] as const;
        });
      await trainer.run({ ...feeds, ...Object.fromEntries(moved) }, rate);
      if (s === 0) gradients = firstGradients(trainer.state());
    }
    out.push({ gradients, weights: valuesOf(trainer.weights) });
  }
  return out;
}

export const valuesOf = (tensors: ReadonlyMap<string, Tensor<'float32'>>): Values =>
  new Map([...tensors].map(([name, { data }]) => [name, data]));
