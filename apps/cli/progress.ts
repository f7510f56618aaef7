/**
 * Progress of long work on stderr, with rate and remaining time: a bar that stays on its line on a terminal, a plain
 * line every few seconds in a log, nothing under --quiet.
 */
import { createRequire } from 'node:module';
import type CliProgress from 'cli-progress';
import { visible } from '../../src/files/visible.ts';

export interface ProgressOptions {
  /** What is counted, in the rate: `scenes` gives "12.3 scenes/s". */
  unit?: string;
  /** Work that was done before this run (a resumed training): it does not count for the rate. */
  start?: number;
}

interface Surroundings {
  quiet?: boolean;
  stream?: NodeJS.WriteStream;
  /** Milliseconds. */
  clock?: () => number;
}

export interface Progress {
  advance(count?: number, note?: string): void;
  update(done: number, news?: { note?: string; total?: number }): void;
  /** Ends the bar and leaves a line with the time that it took. */
  finish(note?: string): void;
}

/** A note may be the name of a file. */
const oneLine = (text: string): string => visible(text).replaceAll('\n', '\\n');

const secondsBetweenLines = 5;

interface Surface {
  draw(line: string, done: number, total: number | undefined): void;
  end(line: string): void;
}

export function createProgress(
  total: number | undefined,
  label: string,
  {
    unit = 'steps',
    start = 0,
    quiet = false,
    stream = process.stderr,
    clock = () => performance.now(),
  }: ProgressOptions & Surroundings = {},
): Progress {
  if (quiet) return { advance: () => {}, update: () => {}, finish: () => {} };
  const surface = stream.isTTY ? bar(label, stream) : lines(label, stream, clock);
  const began = clock();
  let done = start;
  let goal = total;
  let note = '';
  let ended = false;

  const describe = (): string => {
    const seconds = (clock() - began) / 1000;
    const rate = seconds > 0 ? (done - start) / seconds : 0;
    const parts = [goal === undefined ? `${done} ${unit}` : `${done}/${goal}`];
    if (rate > 0) parts.push(formatRate(rate, unit));
    if (rate > 0 && goal !== undefined && done < goal) parts.push(`${formatSeconds((goal - done) / rate)} left`);
    if (note !== '') parts.push(note);
    return oneLine(parts.join(', '));
  };
  const update: Progress['update'] = (count, news = {}) => {
    if (ended) return;
    done = count;
    goal = news.total ?? goal;
    note = news.note ?? note;
    surface.draw(describe(), done, goal);
  };
  return {
    advance: (count = 1, text) => update(done + count, text === undefined ? {} : { note: text }),
    update,
    finish(text = '') {
      if (ended) return;
      ended = true;
      const seconds = formatSeconds((clock() - began) / 1000);
      surface.end(oneLine(`${label}: ${done} ${unit} in ${seconds}${text === '' ? '' : `, ${text}`}`));
    },
  };
}

function bar(label: string, stream: NodeJS.WriteStream): Surface {
  const { SingleBar, Presets } = createRequire(import.meta.url)('cli-progress') as typeof CliProgress;
  const single = new SingleBar(
    { stream, format: `${label} {bar} {line}`, barsize: 24, hideCursor: false, clearOnComplete: true, linewrap: false, fps: 8 },
    Presets.shades_classic,
  );
  let started = false;
  return {
    draw(line, done, total) {
      const goal = total ?? Math.max(1, done * 2);
      if (!started) single.start(goal, done, { line });
      started = true;
      single.setTotal(goal);
      single.update(done, { line });
    },
    end(line) {
      if (started) single.stop();
      stream.write(`${line}\n`);
    },
  };
}

function lines(label: string, stream: NodeJS.WriteStream, clock: () => number): Surface {
  let last = clock();
  return {
    draw(line) {
      const now = clock();
      if (now - last < secondsBetweenLines * 1000) return;
      last = now;
      stream.write(`${label}: ${line}\n`);
    },
    end: (line) => void stream.write(`${line}\n`),
  };
}

export function formatRate(perSecond: number, unit: string): string {
  if (perSecond >= 100) return `${Math.round(perSecond)} ${unit}/s`;
  if (perSecond >= 1) return `${perSecond.toFixed(1)} ${unit}/s`;
  return `${(1 / perSecond).toFixed(1)} s/${unit.replace(/s$/, '')}`;
}

export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
