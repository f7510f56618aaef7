/** Peaks of this process's memory, as Linux counts it: VmHWM of all pages, mapped files included, and the largest RssAnon seen, which is private. */
import { readFileSync, writeFileSync } from 'node:fs';

const field = (name: string): number => {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'));
  if (found === null) throw new Error(`/proc/self/status has no ${name}: memory is measured on Linux only`);
  return Number(found[1]) * 1024;
};

export interface Peaks {
  readonly resident: number;
  readonly private: number;
}

/** Watches private memory from a thread of its own: the engine keeps the main thread busy for seconds. */
export async function watchMemory(): Promise<{ take(): Peaks; stop(): Promise<void> }> {
  const { Worker } = await import('node:worker_threads');
  const shared = new SharedArrayBuffer(8);
  const peak = new Float64Array(shared);
  const code = `
    const { readFileSync } = require('node:fs');
    const { workerData } = require('node:worker_threads');
    const peak = new Float64Array(workerData);
    setInterval(() => {
      const found = /^RssAnon:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'));
      peak[0] = Math.max(peak[0], Number(found[1]) * 1024);
    }, 20);`;
  const worker = new Worker(code, { eval: true, workerData: shared });
  return {
    /** the peaks since the last call */
    take() {
      const peaks = { resident: field('VmHWM'), private: Math.max(peak[0]!, field('RssAnon')) };
      peak[0] = 0;
      // Resets VmHWM; see proc_pid_clear_refs(5).
      writeFileSync('/proc/self/clear_refs', '5');
      return peaks;
    },
    async stop() {
      await worker.terminate();
    },
  };
}
