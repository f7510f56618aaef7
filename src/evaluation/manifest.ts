/** How results were made: enough to make them again, and times, which stay out of the results themselves. */

import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { writeFileAtomic } from '../files/atomic.ts';
import { holdFolder } from '../files/hold-folder.ts';
import { packageVersion } from '../files/package-root.ts';
import { readJsonAs } from '../files/schema.ts';
import { addCosts, type Costs, noCosts } from './costs.ts';

export interface FileId {
  readonly file: string;
  readonly sha256: string;
}

export const fileId = (path: string): FileId => ({
  file: basename(path),
  sha256: createHash('sha256').update(readFileSync(path)).digest('hex'),
});

export interface Versions {
  readonly visedit: string;
  readonly node: string;
  readonly onnxruntime: string;
}

export function versions(): Versions {
  const engine = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };
  return { visedit: packageVersion, node: process.versions.node, onnxruntime: engine.version };
}

/** One stretch of work, from a start or resume to its end or stop. */
export interface Session {
  readonly started: string;
  readonly seconds: number;
  /** records or steps done in it */
  readonly done: number;
  readonly jobs?: number;
  readonly threads?: number;
  readonly device?: string;
  readonly costs?: Costs;
}

/** What sums are added up in another order by: results of two differ in their last digits, and trainings drift apart. */
export interface Machine {
  readonly threads: number;
  readonly device: string;
}

export interface Manifest<I> {
  readonly command: string;
  readonly identity: I;
  readonly finished: boolean;
  readonly timings: { readonly seconds: number; readonly perItem: number | null; readonly sessions: readonly Session[] };
  /** of all sessions that were not killed */
  readonly costs?: Costs;
}

export const manifestFile = 'manifest.json';

/** How editors were set where a manifest does not say so. */
export const earlierProtocol = 'tuned';

/** An identity with the name of its protocol, which earlier ones lack. */
export function withProtocolName<I>(identity: I): I {
  const { protocol } = (identity ?? {}) as { protocol?: object };
  return { ...identity, protocol: { name: earlierProtocol, ...protocol } };
}

const costs = z.object({
  edits: z.number(),
  editSeconds: z.number(),
  askSeconds: z.number(),
  uneditedSeconds: z.number(),
  editBytes: z.number(),
  privateBytes: z.number().nullable(),
}) satisfies z.ZodType<Costs>;
const earlierManifest = z.looseObject({
  identity: z.unknown(),
  timings: z.looseObject({
    sessions: z.array(
      z.looseObject({
        started: z.string(),
        seconds: z.number(),
        done: z.number(),
        jobs: z.number().optional(),
        threads: z.number().optional(),
        device: z.string().optional(),
        costs: costs.optional(),
      }),
    ),
  }),
});

/** The manifest of a folder while work goes on in it. */
export class ManifestKeeper<I extends object> {
  readonly #earlier: readonly Session[];
  readonly #began = performance.now();
  readonly #started = new Date().toISOString();
  readonly #path: string;
  /** lets other processes work in the folder */
  readonly #release: () => void;

  /**
   * @param same whether the work of an earlier manifest goes on; its identity must then agree
   * @param check throws where the folder has what must not be lost: asked once nobody else works there, since another process may have finished
   * after it was asked first
   * @throws Error that names what differs
   */
  constructor(
    folder: string,
    readonly command: string,
    readonly identity: I,
    same: boolean,
    readonly jobs?: number,
    readonly machine?: Machine,
    check: () => void = () => {},
  ) {
    this.#release = holdFolder(folder);
    this.#path = join(folder, manifestFile);
    try {
      check();
      this.#earlier = same && existsSync(this.#path) ? this.#sessions(folder) : [];
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  /** What was done here before. @throws Error that names what differs */
  #sessions(folder: string): readonly Session[] {
    const earlier = readJsonAs(this.#path, earlierManifest);
    const different = differences(
      'protocol' in this.identity ? withProtocolName(earlier.identity) : earlier.identity,
      this.identity,
    );
    if (different.length > 0) {
      throw new Error(
        `${folder} holds the work of another run, so it cannot go on there; use the same settings, or another --out. What differs:\n  ${different.join('\n  ')}`,
      );
    }
    return earlier.timings.sessions;
  }

  write(done: number, finished: boolean, costs?: Costs): Manifest<I> {
    const seconds = (performance.now() - this.#began) / 1000;
    const session: Session = {
      started: this.#started,
      seconds,
      done,
      ...(this.jobs === undefined ? {} : { jobs: this.jobs }),
      ...this.machine,
      ...(costs === undefined ? {} : { costs }),
    };
    const sessions = [...this.#earlier, session];
    const total = sessions.reduce((sum, s) => sum + s.seconds, 0);
    const items = sessions.reduce((sum, s) => sum + s.done, 0);
    const manifest: Manifest<I> = {
      command: this.command,
      identity: this.identity,
      finished,
      timings: { seconds: total, perItem: items === 0 ? null : total / items, sessions },
      ...(costs === undefined
        ? {}
        : { costs: sessions.reduce((sum, s) => (s.costs === undefined ? sum : addCosts(sum, s.costs)), noCosts) }),
    };
    writeFileAtomic(this.#path, `${JSON.stringify(manifest, null, 2)}\n`);
    if (finished) this.#release();
    return manifest;
  }

  /** What going on here means for the numbers, where the work began on other threads or another device. */
  get mixed(): string | undefined {
    const said = ({ threads, device }: Machine): string => `${threads} ${threads === 1 ? 'thread' : 'threads'} on ${device}`;
    const { machine } = this;
    if (machine === undefined) return undefined;
    const others = this.#earlier.flatMap(({ threads, device }) =>
      threads === undefined || device === undefined || (threads === machine.threads && device === machine.device)
        ? []
        : [said({ threads, device })],
    );
    if (others.length === 0) return undefined;
    return `this began with ${[...new Set(others)].join(' and ')} and goes on with ${said(machine)}: sums are rounded otherwise, so the numbers will not be those of a run on one of them; manifest.json says which part was made where`;
  }
}

/** Leaves that differ, as `editor.weights.sha256: there "..", here ".."`. */
export function differences(there: unknown, here: unknown, path = ''): string[] {
  const isObject = (x: unknown): x is Record<string, unknown> => typeof x === 'object' && x !== null;
  if (isObject(there) && isObject(here)) {
    const keys = [...new Set([...Object.keys(there), ...Object.keys(here)])];
    return keys.flatMap((key) => differences(there[key], here[key], path === '' ? key : `${path}.${key}`));
  }
  const shown = (x: unknown): string => JSON.stringify(x) ?? 'nothing';
  return shown(there) === shown(here) ? [] : [`${path}: there ${shown(there)}, here ${shown(here)}`];
}
