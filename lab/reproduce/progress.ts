/** How long a table takes: an estimate before the work, by what its cells took on the minis, and during the work by what was done of it. */
import { sequentialPoints } from '../../src/evaluation/sequential.ts';
import type { CellIdentity } from './cell-store.ts';

/** Seconds on one core with models of the minis' size: a training step, a whole training by the editor's own defaults, an edit, a record asked. */
interface Rates {
  readonly step: number;
  readonly training: number;
  readonly edit: number;
  readonly ask: number;
}

const rates: Readonly<Record<string, Rates>> = {
  'dual-edit': { step: 0.4, training: 600, edit: 0.01, ask: 0.03 },
  'ft-l': { step: 0, training: 0, edit: 0.03, ask: 0.075 },
  'ft-v': { step: 0, training: 0, edit: 0.25, ask: 0.065 },
  ike: { step: 0, training: 3, edit: 0.004, ask: 0.125 },
  ke: { step: 0.34, training: 175, edit: 0.017, ask: 0.041 },
  'live-edit': { step: 0.3, training: 280, edit: 0.006, ask: 0.03 },
  lte: { step: 0.17, training: 600, edit: 0.002, ask: 0.05 },
  mend: { step: 0.28, training: 145, edit: 0.012, ask: 0.048 },
  serac: { step: 0.07, training: 55, edit: 0.001, ask: 0.026 },
  tp: { step: 0, training: 3, edit: 0.02, ask: 0.03 },
  vead: { step: 0.25, training: 375, edit: 0.006, ask: 0.032 },
};
const otherwise: Rates = { step: 0.25, training: 400, edit: 0.05, ask: 0.08 };

/** Opening a model, checking records and compiling what asks; compiling a training step. */
const OPENING = 2;
const COMPILING = 6;

export interface Expected {
  readonly training: number;
  readonly evaluation: number;
}

export function expectedSeconds({ editor, data, lifelong }: CellIdentity): Expected {
  const { step, training, edit, ask } = rates[editor.id] ?? otherwise;
  const steps = editor.training?.steps;
  const lengths = lifelong === undefined ? [1] : sequentialPoints(lifelong.edits);
  const evaluation = lengths.map((length) => {
    const asked = Math.min(lifelong?.sample ?? data.evaluated, data.evaluated);
    // Whole runs are edited, each for its end and once more for the edits' own moments.
    const edited = Math.min(length * Math.ceil(asked / length), length * Math.floor(data.evaluated / length));
    const times = length > 1 && length <= (lifelong?.moments ?? 0) ? 2 : 1;
    return times * (edited * edit + asked * ask);
  });
  return {
    training:
      editor.training === undefined ? 0 : OPENING + (steps === undefined || step === 0 ? training : COMPILING + steps * step),
    evaluation: OPENING + evaluation.reduce((a, b) => a + b, 0),
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
