/**
 * The loop around a compiled training step: schedule, log, checkpoints, resume, stop. Everything a step needs is a function of the seed
 * and the step number, so a run that was killed goes on from its last checkpoint as if nothing had happened.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { makeFolder, writeFileAtomic } from '../files/atomic.ts';
import { parseJson } from '../files/json.ts';
import { openSafetensors, writeSafetensors } from '../files/safetensors.ts';
import { parseConfig, readJsonLines } from '../files/schema.ts';
import type { Tensor } from '../graph/dtype.ts';
import { DeviceError } from '../runtime/card-memory.ts';
import type { StepBatch, Trainer } from './trainer.ts';

export interface LoopOptions {
  trainer: Trainer;
  steps: number;
  /** learning rate of step 1..steps */
  rate: (step: number) => number;
  /** the batch of a step, whole or in parts */
  feeds: (step: number) => Promise<StepBatch> | StepBatch;
  /** where checkpoint and log are kept */
  dir: string;
  /** steps between checkpoints */
  every: number;
  /** what must be equal for a resume to make sense */
  config: Record<string, unknown>;
  resume?: boolean;
  signal?: AbortSignal;
  /** after each step, in their order; where a run takes several, after all of them. Returned numbers go into the log */
  onStep?: (step: number, loss: number, metrics: Record<string, Tensor>) => Record<string, number> | undefined;
  /** at each checkpoint */
  onCheckpoint?: (step: number) => void;
  /** numbers that belong to the run's state, such as a smoothed loss */
  extra?: { save(): Record<string, number>; restore(state: Record<string, number>): void };
}

/** One step in the log; other numbers are metrics. */
export const logLine = z
  .object({ step: z.number(), loss: z.number(), rate: z.number(), gradientNorm: z.number(), seconds: z.number() })
  .catchall(z.number());
export type LogLine = z.output<typeof logLine>;

/** Warm-up, constant until `hold`, then linear to `last` (fractions of the peak). */
export function warmHoldDecay(
  peak: number,
  steps: number,
  { warmup = 100, hold = 0.6, last = 0 } = {},
): (step: number) => number {
  return (step) => {
    const up = Math.min(1, step / Math.max(1, warmup));
    const from = hold * steps;
    const down = step <= from ? 1 : 1 - (1 - last) * ((step - from) / Math.max(1, steps - from));
    return peak * up * down;
  };
}

export const checkpointFile = 'checkpoint.safetensors';
export const logFile = 'log.jsonl';

export class Stopped extends Error {
  override name = 'Stopped';
}

/** Runs to the last step; returns the log. @throws Stopped after saving, when the signal asks; LossError from the trainer */
export async function trainingLoop(options: LoopOptions): Promise<LogLine[]> {
  const { trainer, steps, rate, feeds, dir, every, config, signal, onStep, extra } = options;
  makeFolder(dir);
  const checkpoint = join(dir, checkpointFile);
  const logPath = join(dir, logFile);
  const configText = JSON.stringify(config);
  let lines: LogLine[] = [];
  if (options.resume && existsSync(checkpoint)) {
    const file = openSafetensors(checkpoint);
    if (file.metadata.config !== configText) {
      throw new Error(
        `${checkpoint} belongs to a run with other settings:\n  there: ${file.metadata.config}\n  here:  ${configText}\nuse the same settings, or another --out`,
      );
    }
    const state = new Map(
      [...file.entries].map(([name, entry]): [string, Tensor<'float32'>] => [
        name,
        file.readTensor(entry, { as: 'float32' }) as Tensor<'float32'>,
      ]),
    );
    trainer.restore(Number(file.metadata.step), state);
    const what = `${checkpoint}: metadata extra`;
    const numbers = parseConfig(what, z.record(z.string(), z.number().nullable()), parseJson(file.metadata.extra ?? '{}', what));
    // JSON has null for what is not finite, which is how each of these numbers begins.
    extra?.restore(Object.fromEntries(Object.entries(numbers).filter((entry): entry is [string, number] => entry[1] !== null)));
    if (existsSync(logPath)) lines = readJsonLines(logPath, logLine).filter((line) => line.step <= trainer.step);
  }
  const save = (): void => {
    writeSafetensors(checkpoint, trainer.state(), {
      step: String(trainer.step),
      config: configText,
      extra: JSON.stringify(extra?.save() ?? {}),
    });
    writeFileAtomic(logPath, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  };
  /** batches of steps that are yet to be taken */
  const prepared = new Map<number, StepBatch>();
  while (trainer.step < steps) {
    if (signal?.aborted) {
      save();
      throw new Stopped(`stopped after step ${trainer.step}; run again with --resume to go on`);
    }
    const started = performance.now();
    // A run ends at a checkpoint.
    const next = trainer.step + 1;
    const end = Math.min(steps, trainer.step + trainer.stepsPerRun, Math.ceil(next / every) * every);
    const asked: { batch: StepBatch; rate: number }[] = [];
    for (let step = next; step <= end; step++) {
      const batch = prepared.get(step) ?? (await feeds(step));
      prepared.set(step, batch);
      asked.push({ batch, rate: rate(step) });
    }
    const results = await trainer.runSteps(asked).catch((error: unknown) => {
      if (!(error instanceof DeviceError)) throw error;
      // Weights and state are those of the step before, and the process may be lost.
      save();
      const { message, memory } = error;
      throw new DeviceError(`${message}. Step ${trainer.step} is saved; run again with --resume to go on from it`, memory, {
        cause: error,
      });
    });
    const seconds = (performance.now() - started) / 1000 / results.length;
    results.forEach(({ loss, gradientNorm, metrics }, i) => {
      const step = next + i;
      prepared.delete(step);
      const more = onStep?.(step, loss, metrics) ?? {};
      lines.push({ step, loss, rate: rate(step), gradientNorm, seconds, ...more });
    });
    if (trainer.step % every === 0 || trainer.step === steps) {
      // Before the state is saved, so that it holds what this changes.
      options.onCheckpoint?.(trainer.step);
      save();
    }
  }
  return lines;
}
