/** One HTTP request to a hub: redirects followed by hand, the token kept from other hosts, failures told in the user's terms. */

import { setTimeout as sleep } from 'node:timers/promises';

export interface HubAddress {
  readonly endpoint: string;
  readonly id: string;
  readonly revision: string;
}

export interface RemoteFile {
  readonly name: string;
  readonly url: string;
  readonly size?: number;
  /** changes with the content */
  readonly etag?: string | undefined;
  readonly sha256?: string;
}

/** A failure that another try does not mend. */
export class HubError extends Error {
  override name = 'HubError';
  /** HTTP status, where there was one */
  status?: number;
}

/** A failure that may pass: a broken connection, an overloaded server. */
export class TransferError extends Error {
  override name = 'TransferError';
  status?: number;
}

export interface HubResponse {
  response: Response;
  /** what the hub itself said of a file before it sent us to where the data lies */
  linked: { etag?: string; size?: string };
}

const MAX_REDIRECTS = 8;
const MAX_ANSWER = 16 * 1024 * 1024;

export async function hubRequest(
  address: HubAddress,
  url: string,
  {
    method = 'GET',
    headers = {},
    signal,
  }: { method?: 'GET' | 'HEAD'; headers?: Record<string, string>; signal?: AbortSignal | undefined } = {},
): Promise<HubResponse> {
  const linked: HubResponse['linked'] = {};
  const home = new URL(address.endpoint).origin;
  let at = new URL(url);
  for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
    const token = process.env.HF_TOKEN;
    let response: Response;
    try {
      response = await fetch(at, {
        method,
        redirect: 'manual',
        signal: signal ?? null,
        headers: {
          'accept-encoding': 'identity',
          'user-agent': 'visedit',
          ...headers,
          ...(token && at.origin === home ? { authorization: `Bearer ${token}` } : {}),
        },
      });
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw new TransferError(
        `cannot reach ${at.origin} (${reason(error)}); check the network, or name another hub with --endpoint`,
        { cause: error },
      );
    }
    const etag = response.headers.get('x-linked-etag');
    const size = response.headers.get('x-linked-size');
    if (etag !== null) linked.etag ??= etag;
    if (size !== null) linked.size ??= size;
    const location = response.headers.get('location');
    if (response.status < 300 || response.status > 399 || location === null || response.status === 304) {
      if (!response.ok && response.status !== 416) {
        await response.body?.cancel();
        throw Object.assign(failure(address, at, response), { status: response.status });
      }
      return { response, linked };
    }
    await response.body?.cancel();
    // Of a large file the hub has told size and hash; where the data lies need not be asked too.
    if (method === 'HEAD' && linked.etag !== undefined && linked.size !== undefined) return { response, linked };
    at = new URL(location, at);
    if (!/^https?:$/.test(at.protocol)) throw new HubError(`${url} leads to ${at.protocol} addresses, which are not followed`);
  }
  throw new HubError(`${url} was redirected more than ${MAX_REDIRECTS} times`);
}

function failure({ endpoint, id, revision }: HubAddress, at: URL, { status, headers }: Response): HubError | TransferError {
  const code = headers.get('x-error-code') ?? '';
  const gated = `${id} is gated or private: accept its terms at ${endpoint}/${id} and set HF_TOKEN to an access token of your account`;
  if (code === 'GatedRepo' || status === 403) return new HubError(`${gated} (HTTP ${status})`);
  if (status === 401) {
    const hint =
      code === 'RepoNotFound'
        ? `there is no public model ${id} at ${endpoint}; check its name. If it is private, set HF_TOKEN`
        : gated;
    return new HubError(`${hint} (HTTP 401)`);
  }
  if (code === 'RevisionNotFound')
    return new HubError(`${id} has no revision ${revision} at ${endpoint}; see ${endpoint}/${id}/tree/main`);
  if (status === 404) {
    const what = at.pathname.includes('/resolve/')
      ? `${at.pathname} is missing at ${at.origin}`
      : `there is no model ${id} with a revision ${revision} at ${endpoint}; check its name`;
    return new HubError(`${what} (HTTP 404)`);
  }
  const message = `${at.origin} answered HTTP ${status} for ${at.pathname}`;
  return status === 429 || status >= 500 ? new TransferError(`${message}; try again later`) : new HubError(message);
}

/** An answer's text; a hub's list of files is far below the limit. */
export async function answerText(response: Response, url: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER) throw new HubError(`${url} answered with more than ${MAX_ANSWER} bytes; is it a hub?`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/**
 * Tries again, ever more slowly, when a failure may pass.
 * @param again whether to, given how many tries there were
 */
export async function persistently<T>(
  work: () => Promise<T>,
  {
    delay = 1000,
    signal,
    again,
  }: { delay?: number | undefined; signal: AbortSignal | undefined; again: (error: TransferError, tries: number) => boolean },
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!(error instanceof TransferError) || !again(error, tries)) throw error;
      await sleep(delay * 2 ** Math.min(5, tries - 1), undefined, signal ? { signal } : {});
    }
  }
}

/** The system's word for why a connection failed. */
export function reason(error: unknown): string {
  const { cause, message } = error as { cause?: { code?: string; message?: string }; message: string };
  return cause?.code ?? cause?.message ?? message;
}
