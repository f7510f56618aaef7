/** How a server is started. */

import type { Logger } from 'pino';
import type { WeightType } from '../../src/models/weight-types.ts';

/** Bounds of what a client may ask. */
export interface Limits {
  /** bytes of a request's body */
  readonly bodyBytes: number;
  /** nested lists and objects of a body */
  readonly jsonDepth: number;
  /** values of lists and fields of objects in a body */
  readonly jsonValues: number;
  /** pixels of one picture */
  readonly pixels: number;
  readonly promptCharacters: number;
  /** new tokens of one answer */
  readonly maxTokens: number;
  /** queries of one comparison */
  readonly queries: number;
  /** edits in one set */
  readonly editsPerSet: number;
  /** edits in all */
  readonly edits: number;
  /** jobs that are kept, finished ones first to go */
  readonly jobs: number;
  /** event streams that are open at once */
  readonly eventStreams: number;
}

export const defaultLimits: Limits = {
  bodyBytes: 32 * 1024 * 1024,
  jsonDepth: 16,
  jsonValues: 100_000,
  pixels: 16_000_000,
  promptCharacters: 32_768,
  maxTokens: 4096,
  queries: 32,
  editsPerSet: 1000,
  edits: 10_000,
  jobs: 50,
  eventStreams: 64,
};

/** A file of records that clients may browse. */
export interface DatasetFile {
  readonly data: string;
  /** folder that image paths start from */
  readonly images: string;
}

export interface ServerOptions {
  /** folders or built-in names */
  readonly models: readonly string[];
  /** where edits and the drawn mini world are kept */
  readonly dataDir: string;
  readonly host: string;
  /** 0: a free one */
  readonly port: number;
  /** none: loopback only */
  readonly key?: string | undefined;
  /** further weights of editors, beside those that come with the models */
  readonly weights?: readonly string[];
  /** modules of editors from outside */
  readonly editors?: readonly string[];
  /** folders of evaluations and trainings */
  readonly runs?: readonly string[];
  /** none: the mini world */
  readonly datasets?: readonly DatasetFile[];
  /** seed of the mini world */
  readonly worldSeed?: number;
  /** names in a Host header beside localhost and addresses */
  readonly allowHosts?: readonly string[];
  /** as `http://localhost:5173` */
  readonly allowOrigins?: readonly string[];
  /** hosts, with a port or without, whose pictures may be fetched */
  readonly allowImageHosts?: readonly string[];
  /** requests that wait for the engine at most */
  readonly queue?: number;
  /** requests that the engine works on at once, taking turns */
  readonly concurrency?: number;
  /** seconds that a request may take in the engine */
  readonly timeout?: number;
  /** whether the scope cards of a set are asked again when it has changed; they are when absent */
  readonly measure?: 'changed' | 'none';
  /** seconds that running requests have to finish after SIGTERM */
  readonly drain?: number;
  readonly limits?: Partial<Limits>;
  readonly logger?: Logger;
  readonly threads?: number | undefined;
  readonly dtype?: WeightType | undefined;
  /** bytes that each model may take */
  readonly maxMemory?: number | undefined;
  /** pixels that a picture has at least and at most for the image encoders, where their processors scale by such limits */
  readonly minPixels?: number | undefined;
  readonly maxPixels?: number | undefined;
  /** folder of the built web app */
  readonly studio?: string | undefined;
}

const loopback = new Set(['localhost', '127.0.0.1', '::1']);

/** @throws Error when anybody on the network could use a server without a key */
export function checkReach({ host, key }: Pick<ServerOptions, 'host' | 'key'>): void {
  if (key !== undefined && !/^[\x21-\x7e]{8,}$/.test(key))
    throw new Error('the key must have at least 8 characters, none of them white space or outside of ASCII');
  if (key === undefined && !loopback.has(host))
    throw new Error(
      `without a key the server listens on this machine only (127.0.0.1), not on ${host}; give a key with --key or VISEDIT_KEY, or leave out --host`,
    );
}
