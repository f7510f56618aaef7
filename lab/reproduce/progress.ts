/** How long a table takes: an estimate before the work, by what its cells took on the minis, and during the work by what was done of it. */
import { sequentialPoints } from '../../src/evaluation/sequential.ts';
import type { CellIdentity } from './cell-store.ts';

/** Seconds on one core with models of the minis' size: a training step, a whole training by the editor's own defaults, a record asked. */
interface Rates {
  readonly step: number;
  readonly training: number;
  readonly record: number;
}

const rates: Readonly<Record<string, Rates>> = {
  'ft-l': { step: 0, training: 0, record: 0.09 },
  'ft-v': { step: 0, training: 0, record: 0.3 },
  ike: { step: 0, training: 3, record: 0.18 },
  ke: { step: 0.34, training: 175, record: 0.06 },
  lte: { step: 0.17, training: 600, record: 0.05 },
  mend: { step: 0.28, training: 145, record: 0.05 },
  serac: { step: 0.07, training: 55, record: 0.027 },
  tp: { step: 0, training: 3, record: 0.06 },
  vead: { step: 0.25, training: 375, record: 0.04 },
};
const otherwise: Rates = { step: 0.25, training: 400, record: 0.15 };

/** Opening a model, checking records and compiling what asks; compiling a training step. */
const OPENING = 2;
const COMPILING = 6;

export interface Expected {
  readonly training: number;
  readonly evaluation: number;
}

export function expectedSeconds({ editor, data, lifelong }: CellIdentity): Expected {
  // Every record is asked at every length.
  const times = lifelong === undefined ? 1 : sequentialPoints(lifelong.edits).length;
  const { step, training, record } = rates[editor.id] ?? otherwise;
  const steps = editor.training?.steps;
  return {
    training:
      editor.training === undefined ? 0 : OPENING + (steps === undefined || step === 0 ? training : COMPILING + steps * step),
    evaluation: OPENING + times * data.evaluated * record,
  };
}

export interface WorkReport {
  /** of the expected work */
  readonly share: number;
  /** which cell and what is done in it */
  readonly what: string;
}

export class WorkProgress {
  readonly #total: number;
  #next = 0;
  #before = 0;
  #what = '';

  constructor(
    readonly cells: readonly Expected[],
    readonly report: (report: WorkReport) => void,
  ) {
    this.#total = cells.reduce((sum, { training, evaluation }) => sum + training + evaluation, 0);
  }

  /** The whole time in words. */
  expected(): string {
    const minutes = this.#total / 60;
    return minutes < 90 ? `${Math.max(1, Math.round(minutes))} min` : `${(minutes / 60).toFixed(1)} h`;
  }

  begin(what: string): void {
    this.#what = what;
    this.#tell(0, 'opening');
  }

  trained(step: number, steps: number, loss: number): void {
    this.#tell((this.cells[this.#next]!.training * step) / steps, `training ${step}/${steps}, loss ${loss.toPrecision(3)}`);
  }

  evaluated(done: number, total: number): void {
    const { training, evaluation } = this.cells[this.#next]!;
    this.#tell(training + (evaluation * done) / total, `${done}/${total} edits asked`);
  }

  end(): void {
    const { training, evaluation } = this.cells[this.#next]!;
    this.#before += training + evaluation;
    this.#next++;
  }

  #tell(done: number, note: string): void {
    this.report({
      share: (this.#before + done) / this.#total,
      what: `[${this.#next + 1}/${this.cells.length}] ${this.#what}: ${note}`,
    });
  }
}
