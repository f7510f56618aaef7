/** What editing and asking take: seconds of each, bytes of an edit, private memory of the process. Machines differ, so it stays out of results. */

import { readFileSync } from 'node:fs';
import type { Edit, EditorWeights } from '../editors/editor.ts';

export interface Costs {
  readonly edits: number;
  /** making the edits */
  readonly editSeconds: number;
  /** asking all queries under them */
  readonly askSeconds: number;
  /** asking the unedited model, where its answers were not known */
  readonly uneditedSeconds: number;
  /** of all edits, as float32, without what they share with the editor's weights */
  readonly editBytes: number;
  /** the most private memory of a process, seen after a batch; null where the system does not tell */
  readonly privateBytes: number | null;
}

export const noCosts: Costs = { edits: 0, editSeconds: 0, askSeconds: 0, uneditedSeconds: 0, editBytes: 0, privateBytes: null };

export function addCosts(a: Costs, b: Costs): Costs {
  const memory = [a.privateBytes, b.privateBytes].filter((bytes) => bytes !== null);
  return {
    edits: a.edits + b.edits,
    editSeconds: a.editSeconds + b.editSeconds,
    askSeconds: a.askSeconds + b.askSeconds,
    uneditedSeconds: a.uneditedSeconds + b.uneditedSeconds,
    editBytes: a.editBytes + b.editBytes,
    privateBytes: memory.length === 0 ? null : Math.max(...memory),
  };
}

export async function timed<T>(work: () => Promise<T>): Promise<{ value: T; seconds: number }> {
  const began = performance.now();
  const value = await work();
  return { value, seconds: (performance.now() - began) / 1000 };
}

export function bytesOfEdits(edits: readonly Edit[], weights?: EditorWeights): number {
  const shared = new Set(weights?.tensors.values());
  const own = edits.flatMap(({ tensors }) => [...tensors.values()].filter((tensor) => !shared.has(tensor)));
  return own.reduce((sum, { data }) => sum + data.byteLength, 0);
}

/** Anonymous pages of this process, as Linux counts them; null elsewhere. */
export function privateMemory(): number | null {
  try {
    const found = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'));
    return found === null ? null : Number(found[1]) * 1024;
  } catch {
    return null;
  }
}

export interface PerEdit {
  readonly editSeconds: number;
  readonly askSeconds: number;
  readonly editBytes: number;
  readonly privateBytes: number | null;
}

/** Means over the edits that were made; null where none was, since all was finished before. */
export function perEdit(costs: Costs | undefined): PerEdit | null {
  if (costs === undefined || costs.edits === 0) return null;
  const { edits, editSeconds, askSeconds, editBytes, privateBytes } = costs;
  return { editSeconds: editSeconds / edits, askSeconds: askSeconds / edits, editBytes: editBytes / edits, privateBytes };
}
