/** Every check of every model of a fixture folder. A part that cannot be run is one failed check under the part's name. */
import type { CompileOptions } from '../../src/runtime/program.ts';
import { checkModules, checkVisual } from './attribution.ts';
import { type Check, Checks } from './checks.ts';
import { checkDualEdit } from './dual-edit.ts';
import { checkEvaluation } from './evaluation.ts';
import { fixtureModels, openFixture } from './fixture.ts';
import { checkForward, checkGreedy, checkMasks } from './forward.ts';
import { checkPixels, checkSizes, checkTokens } from './inputs.ts';
import { checkLiveEdit } from './live-edit.ts';
import { checkGrids, checkMessages } from './messages.ts';
import { openSubject, type Subject } from './subject.ts';
import { checkTraining } from './training.ts';
import { checkVead } from './vead.ts';
import { checkVision } from './vision.ts';

export interface ConformanceReport {
  models: { model: string; checks: Check[] }[];
  /** checks of all models */
  passed: number;
  failed: number;
}

export interface ConformanceOptions extends CompileOptions {
  /** names of models; default: all */
  models?: readonly string[];
  signal?: AbortSignal;
  onPart?: (done: number, total: number, now: string) => void;
}

/** In the order in which data flow through a model: the first part that fails is where to look. */
const parts: Record<string, (subject: Subject) => void | Promise<void>> = {
  sizes: checkSizes,
  tokens: checkTokens,
  messages: checkMessages,
  grids: checkGrids,
  pixels: checkPixels,
  vision: checkVision,
  forward: checkForward,
  masks: checkMasks,
  greedy: checkGreedy,
  modules: checkModules,
  visual: checkVisual,
  vead: checkVead,
  evaluation: checkEvaluation,
  training: checkTraining,
  'live-edit': checkLiveEdit,
  'dual-edit': checkDualEdit,
};

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/**
 * Compares every step of the models of a fixture folder with the values of the reference implementations.
 * @param dir holds expected/<model>/meta.json and tensors.safetensors, the models, images/ and vqa_records.json
 * @throws Error that names the models there are when another one is asked for
 */
export async function conformance(
  dir: string,
  { models, signal, onPart, ...options }: ConformanceOptions = {},
): Promise<ConformanceReport> {
  const known = fixtureModels(dir);
  const unknown = (models ?? []).filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new Error(`${dir} has no expected values for ${unknown.join(', ')}; it has: ${known.join(', ')}`);
  const chosen = models === undefined || models.length === 0 ? known : known.filter((name) => models.includes(name));
  const count = Object.keys(parts).length;
  const report: ConformanceReport = { models: [], passed: 0, failed: 0 };
  for (const [m, model] of chosen.entries()) {
    const checks = await checkModel(dir, model, options, (done, part) => {
      signal?.throwIfAborted();
      onPart?.(m * count + done, chosen.length * count, `${model} ${part}`);
    });
    report.models.push({ model, checks });
    for (const { pass } of checks) report[pass ? 'passed' : 'failed']++;
  }
  return report;
}

async function checkModel(
  dir: string,
  model: string,
  options: CompileOptions,
  onPart: (done: number, part: string) => void,
): Promise<Check[]> {
  const checks = new Checks();
  let subject: Subject;
  try {
    subject = await openSubject(openFixture(dir, model), checks, options);
  } catch (error) {
    checks.fail('open', messageOf(error));
    return checks.list();
  }
  try {
    for (const [n, [part, check]] of Object.entries(parts).entries()) {
      onPart(n, part);
      try {
        await check(subject);
      } catch (error) {
        checks.fail(part, messageOf(error));
      }
    }
  } finally {
    await subject.vlm.release();
  }
  // Expected values that hold nothing prove nothing.
  if (checks.list().length === 0) checks.fail('open', `expected/${model} has no values to compare with`);
  return checks.list();
}
