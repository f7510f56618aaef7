/** One file of a hub: kept as NAME.part until it is whole and, where the hub names its SHA-256, checked. Broken transfers go on where they broke. */

import { createHash, type Hash } from 'node:crypto';
import { createReadStream, existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { constants, open } from 'node:fs/promises';
import { join } from 'node:path';
import { type HubAddress, HubError, hubRequest, persistently, type RemoteFile, reason, TransferError } from './hub-request.ts';

const ATTEMPTS = 6;
/** A transfer that brings nothing for this long is broken off and begun again. */
const STALL = 30_000;

export interface DownloadOptions {
  /** a file that is there with the right size is the same content */
  complete: boolean;
  signal: AbortSignal | undefined;
  retryDelay: number | undefined;
  /** bytes of the file that are there by now */
  onBytes: (count: number) => void;
}

export const partOf = (out: string, name: string): string => join(out, `${name}.part`);

/** Fetches what is missing of a file; returns its size. */
export async function downloadFile(
  address: HubAddress,
  file: RemoteFile,
  out: string,
  options: DownloadOptions,
): Promise<number> {
  const path = join(out, file.name);
  const part = partOf(out, file.name);
  const there = statSync(path, { throwIfNoEntry: false });
  if (
    there !== undefined &&
    there.size === file.size &&
    (options.complete || (file.sha256 !== undefined && (await sha256(path)).digest('hex') === file.sha256))
  ) {
    options.onBytes(there.size);
    return there.size;
  }
  let failures = 0;
  let before = sizeOf(part);
  const size = await persistently(() => transfer(address, file, part, options), {
    delay: options.retryDelay,
    signal: options.signal,
    again: () => {
      // What made progress is not counted as a failure.
      const now = sizeOf(part);
      failures = now > before ? 0 : failures + 1;
      before = now;
      return failures < ATTEMPTS;
    },
  }).catch((error) => {
    if (!(error instanceof TransferError)) throw error;
    throw new HubError(`${error.message}. What is there is kept; run the same command to go on`, { cause: error });
  });
  renameSync(part, path);
  return size;
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

async function sha256(path: string): Promise<Hash> {
  const hash = createHash('sha256');
  if (existsSync(path)) for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash;
}

/** Fetches the rest of the part and checks it whole; returns its size. */
async function transfer(address: HubAddress, file: RemoteFile, part: string, options: DownloadOptions): Promise<number> {
  const { size, hash } = await append(address, file, part, options);
  if (file.size !== undefined && size !== file.size)
    throw new TransferError(`${file.name} ended after ${size} of ${file.size} bytes`);
  const digest = hash.digest('hex');
  if (file.sha256 === undefined || digest === file.sha256) return size;
  rmSync(part);
  throw new HubError(
    `${file.name} arrived damaged: its SHA-256 is ${digest}, the hub says ${file.sha256}; run the same command again`,
  );
}

async function append(
  address: HubAddress,
  file: RemoteFile,
  part: string,
  options: DownloadOptions,
): Promise<{ size: number; hash: Hash }> {
  let at = sizeOf(part);
  if (file.size !== undefined && at > file.size) {
    rmSync(part);
    at = 0;
  }
  if (at > 0 && at === file.size) return { size: at, hash: await sha256(part) };

  const stalled = new AbortController();
  const signal = options.signal === undefined ? stalled.signal : AbortSignal.any([options.signal, stalled.signal]);
  let timer: NodeJS.Timeout | undefined;
  const alive = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => stalled.abort(new TransferError(`nothing of ${file.name} came for ${STALL / 1000} s`)), STALL);
  };
  alive();
  try {
    const { response } = await hubRequest(address, file.url, { headers: at > 0 ? { range: `bytes=${at}-` } : {}, signal });
    // A server without ranges begins anew.
    const resumed = response.status === 206 && response.headers.get('content-range')?.startsWith(`bytes ${at}-`);
    if (!resumed) at = 0;
    if (response.status === 416 || (response.status === 206 && !resumed)) {
      await response.body?.cancel();
      rmSync(part, { force: true });
      throw new TransferError(`${new URL(file.url).origin} cannot go on with ${file.name} where it stopped`);
    }
    const hash = resumed ? await sha256(part) : createHash('sha256');
    // Not through a link that somebody put there.
    const how = resumed ? constants.O_APPEND : constants.O_TRUNC;
    const handle = await open(part, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW | how);
    try {
      if (response.body !== null) {
        for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
          alive();
          if (file.size !== undefined && at + chunk.length > file.size)
            throw new HubError(`${file.name} is longer than the ${file.size} bytes that the hub announced`);
          await handle.writeFile(chunk);
          hash.update(chunk);
          at += chunk.length;
          options.onBytes(at);
        }
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    return { size: at, hash };
  } catch (error) {
    if (options.signal?.aborted) throw options.signal.reason;
    if (stalled.signal.aborted) throw stalled.signal.reason;
    // fetch tells of a connection that broke off by a TypeError.
    if (error instanceof TypeError || (error as NodeJS.ErrnoException).code?.startsWith('UND_ERR'))
      throw new TransferError(`the transfer of ${file.name} broke off (${reason(error)})`, { cause: error });
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
