/**
 * One process at a time works in a folder. Each leaves a file there whose name says who it is, then looks for those of others: of two that come at
 * once, one at least sees the other. A file of a process that is gone is removed, which cannot hit anybody else's.
 */
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { makeFolder } from './atomic.ts';

const PREFIX = '.in-use-by.';
const TRIES = 6;
const host = (): string => hostname().replace(/[^\w-]/g, '_') || 'here';

/**
 * @returns lets others in; done by itself when the process ends
 * @throws Error that names the process that is there
 */
export function holdFolder(folder: string): () => void {
  makeFolder(folder);
  const name = `${PREFIX}${host()}.${process.pid}.${startOf(process.pid)}`;
  const own = join(folder, name);
  const release = (): void => {
    process.off('exit', release);
    rmSync(own, { force: true });
  };
  for (let tries = 1; ; tries++) {
    writeFileSync(own, '');
    const other = readdirSync(folder).find((one) => one.startsWith(PREFIX) && one !== name && isAtWork(folder, one));
    if (other === undefined) break;
    const since = statSync(join(folder, other), { throwIfNoEntry: false })?.mtime.toISOString() ?? 'a moment';
    rmSync(own, { force: true });
    if (tries === TRIES) {
      const [machine, pid] = other.slice(PREFIX.length).split('.');
      const where = machine === host() ? `process ${pid}` : `process ${pid} of the machine ${machine}`;
      const gone = machine === host() ? '' : `, or remove ${join(folder, other)} if it is gone`;
      throw new Error(`${folder} is in use: ${where} has worked in it since ${since}; wait for it, name another folder${gone}`);
    }
    // Two that saw each other come again at different times.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1 + Math.random() * 40);
  }
  process.on('exit', release);
  return release;
}

/** Whether the process of a file still runs; the file of one that is gone is removed. */
function isAtWork(folder: string, name: string): boolean {
  const [machine, pid = '', start] = name.slice(PREFIX.length).split('.');
  // Of another machine, nothing can be known.
  if (machine !== host()) return true;
  if (isRunning(Number(pid)) && startOf(Number(pid)) === start) return true;
  rmSync(join(folder, name), { force: true });
  return false;
}

/** Whether there is a process of that number. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** When a process started, in the system's ticks: its number may belong to another one later. */
function startOf(pid: number): string {
  try {
    // The name before it, in parentheses, may hold anything.
    return readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\)/s, '').trim().split(' ')[19] ?? '0';
  } catch {
    return '0';
  }
}
