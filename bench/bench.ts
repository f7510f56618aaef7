/**
 * `npm run bench`: forward and VEAD training step on a LLaVA-shaped random model, against a plain PyTorch transcription of the same
 * computation (reference.py) where VISEDIT_PYTHON names a Python with torch and safetensors. Both sides take turns in one run, so that what else
 * the machine does hits both; the smallest time of each counts. Both must compute the same numbers.
 *   --rounds N   turns (default 3)      --threads N  of both sides (default 2)      --batch N  records, 1 to 4 (default 4)
 *   --work       which of forward, step, traces (default all)
 *   --attention  eager or sdpa, PyTorch's attention (default eager)      --json  one JSON document
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { table } from '../apps/cli/table.ts';
import { openOurs } from './ours.ts';
import { type Answer, startReference } from './reference.ts';

const { values: given } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    batch: { type: 'string', default: '4' },
    work: { type: 'string', default: 'forward,step,traces' },
    attention: { type: 'string', default: 'eager' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(given.rounds);
const threads = Number(given.threads);
const batch = Number(given.batch);
const chosen = new Set(given.work.split(','));

const say = (line: string): void => void process.stderr.write(`${line}\n`);
interface Timed<T> {
  seconds: number;
  /** time that the processor spent, on all threads: what other programs on the machine change least */
  cpu: number;
  result: T;
}

const time = async <T>(work: () => Promise<T>): Promise<Timed<T>> => {
  const started = performance.now();
  const cpu = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  return { seconds: (performance.now() - started) / 1000, cpu: (user + system) / 1e6, result };
};

const works = ['forward', 'step', 'traces'] as const;
type Work = (typeof works)[number];
type Best = Partial<Record<Work, { seconds: number; cpu: number }>>;

const dir = mkdtempSync(join(tmpdir(), 'visedit-bench-'));
try {
  say('Making a random model (12 layers, 576 visual tokens) and four records ...');
  const ours = await openOurs(dir, threads, batch);
  const python = process.env.VISEDIT_PYTHON;
  const reference = python === undefined || python === '' ? undefined : startReference(python, threads);
  if (reference === undefined) say('VISEDIT_PYTHON names no Python with torch and safetensors: only our own times are measured.');
  let loaded: Answer | undefined;
  if (reference !== undefined) loaded = await reference.ask({ ...(await ours.share(dir)), attention: given.attention });

  const best = { ours: {} as Best, torch: {} as Best };
  const keep = (side: 'ours' | 'torch', work: Work, { seconds, cpu }: { seconds: number; cpu: number }): void => {
    const before = best[side][work] ?? { seconds: Number.POSITIVE_INFINITY, cpu: Number.POSITIVE_INFINITY };
    best[side][work] = { seconds: Math.min(before.seconds, seconds), cpu: Math.min(before.cpu, cpu) };
    say(`  ${side === 'ours' ? 'visedit' : 'PyTorch'} ${work}: ${seconds.toFixed(2)} s (processor ${cpu.toFixed(2)} s)`);
  };
  const differences: Record<string, number> = {};
  const relative = (a: number, b: unknown): number => Math.abs(a - (b as number)) / Math.abs(b as number);
  // The first turn warms up: it compiles our programs, and is where the numbers of both sides are compared.
  for (let round = 0; round <= rounds; round++) {
    say(round === 0 ? 'Warming up and comparing ...' : `Turn ${round} of ${rounds} ...`);
    for (const work of works) {
      if (!chosen.has(work)) continue;
      // The other side needs many seconds for its traces.
      if (work === 'traces' && round > 1) continue;
      const mine = await time<unknown>(() => ours[work]());
      if (round > 0) keep('ours', work, mine);
      if (reference === undefined || (work === 'traces' && round === 0)) continue;
      const theirs = await reference.ask({ do: work });
      if (round > 0) keep('torch', work, theirs);
      if (work === 'traces') differences['influence target'] = largest(mine.result as Float32Array, theirs.c as number[]);
      if (round > 0) continue;
      if (work === 'forward') differences['mean |logit|'] = relative(mine.result as number, theirs.mean);
      if (work === 'step') {
        const { loss, gradientNorm } = mine.result as { loss: number; gradientNorm: number };
        differences.loss = relative(loss, theirs.loss);
        differences['gradient norm'] = relative(gradientNorm, theirs.gradientNorm);
      }
    }
  }
  const twice = async (work: () => Promise<void>): Promise<number> =>
    Math.min((await time(work)).seconds, (await time(work)).seconds);
  const perRecord = (await twice(() => ours.allTraces())) / batch;
  const attribution = await twice(() => ours.attribution());
  reference?.close();
  await ours.release();

  const sum = ({ step, traces }: Best) =>
    step && traces ? { seconds: step.seconds + traces.seconds, cpu: step.cpu + traces.cpu } : undefined;
  const lines = [
    { what: `forward, ${batch} inputs`, ours: best.ours.forward, torch: best.torch.forward, goal: 1.3 },
    { what: `training step, batch ${batch}`, ours: best.ours.step, torch: best.torch.step, goal: 2 },
    { what: 'influence traces of a step', ours: best.ours.traces, torch: best.torch.traces },
    { what: 'step + its traces', ours: sum(best.ours), torch: sum(best.torch) },
  ].map((line) => ({
    ...line,
    ratio: line.torch && line.ours ? line.torch.seconds / line.ours.seconds : undefined,
    cpuRatio: line.torch && line.ours ? line.torch.cpu / line.ours.cpu : undefined,
  }));
  const wrong = Object.entries(differences).filter(([, difference]) => !(difference <= 1e-3));

  if (given.json) {
    process.stdout.write(
      `${JSON.stringify({ threads, attention: given.attention, lines, tracesPerRecord: perRecord, attribution, differences })}\n`,
    );
  } else {
    const shown = (x: number | undefined, digits = 2): string => (x === undefined ? '' : x.toFixed(digits));
    const head = [
      '',
      'visedit s',
      `PyTorch ${loaded ? String(loaded.torch) : ''} s`,
      'times faster',
      'by processor time',
      'goal',
    ];
    const rows = lines.map(({ what, ours, torch, ratio, cpuRatio, goal }) => [
      what,
      shown(ours?.seconds),
      shown(torch?.seconds),
      shown(ratio),
      shown(cpuRatio),
      shown(goal, 1),
    ]);
    const width = reference === undefined ? 2 : head.length;
    const cut = <T>(row: readonly T[]): T[] => row.slice(0, width);
    process.stdout.write(
      `${table({ head: cut(head), rows: rows.map(cut), align: ['left', 'right', 'right', 'right', 'right', 'right'] })}\n\n`,
    );
    process.stdout.write(
      `${threads} threads on both sides, float32. Training prepares the traces of all 576 tokens once per record: ${perRecord.toFixed(2)} s each.\n`,
    );
    process.stdout.write(`Visual attribution of one layer, 576 tokens x 10 draws: ${attribution.toFixed(2)} s.\n`);
    for (const [name, difference] of Object.entries(differences))
      process.stdout.write(`difference of ${name}: ${difference.toExponential(1)}\n`);
  }
  if (wrong.length > 0) {
    say(`The two sides differ: ${wrong.map(([name]) => name).join(', ')}`);
    process.exitCode = 1;
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}

function largest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let worst = a.length === b.length ? 0 : Number.NaN;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  return worst;
}
