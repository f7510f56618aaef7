/** Requests to the server that the page came from: JSON, events, a key where the server wants one, errors as sentences. */
import type { Job } from './types.ts';

export class ApiError extends Error {
  readonly status: number;
  readonly code: string | undefined;

  constructor(status: number, message: string, code?: string) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
  }
}

const unreachable = 'unreachable';
const lost = () =>
  new ApiError(0, 'The connection to the server was lost. What was asked is asked again when the server answers.', unreachable);

/** Whether an error says that there was no server to ask. */
export const isUnreachable = (error: unknown): boolean => error instanceof ApiError && error.code === unreachable;

const keyName = 'visedit-key';
let key = sessionStorage.getItem(keyName) ?? '';

/** Kept until the tab is closed, and sent to this server only. */
export function setKey(value: string): void {
  key = value;
  sessionStorage.setItem(keyName, value);
}

interface Request {
  method?: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  body?: unknown;
  signal?: AbortSignal | undefined;
}

async function send(path: string, { method = 'GET', body, signal }: Request = {}): Promise<Response> {
  const headers: Record<string, string> = {};
  if (method !== 'GET') headers['content-type'] = 'application/json';
  if (key !== '') headers.authorization = `Bearer ${key}`;
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(0, 'The server cannot be reached. Is `visedit studio` still running? Start it again.', unreachable);
  }
  if (response.ok) return response;
  const text = await response.text();
  throw toError(response.status, text, response.headers.get('retry-after'));
}

function toError(status: number, text: string, retryAfter: string | null): ApiError {
  let message = text.slice(0, 300);
  let code: string | undefined;
  try {
    const { error } = JSON.parse(text) as { error: { message: string; code?: string } };
    message = error.message;
    code = error.code;
  } catch {
    // Not one of the server's own errors: what was sent is shown as it is.
  }
  if (status === 429) message = `The server has as much to do as it takes. Try again in ${retryAfter ?? 'a few'} seconds.`;
  return new ApiError(status, message === '' ? `The server answered with status ${status}.` : sentence(message), code);
}

/** The server's messages begin small and end without a stop, as those of programs do. */
const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');

export async function json<T>(path: string, request?: Request): Promise<T> {
  return (await (await send(path, request)).json()) as T;
}

export async function blob(path: string, signal?: AbortSignal): Promise<Blob> {
  return (await send(path, { signal })).blob();
}

export interface ServerEvent {
  event: string;
  data: string;
}

/** Server-sent events, by fetch, so that a key can go along. */
export async function* events(path: string, request?: Request): AsyncGenerator<ServerEvent> {
  const response = await send(path, request);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw error instanceof DOMException && error.name === 'AbortError' ? error : lost();
      });
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const found = parseEvent(block);
        if (found !== undefined) yield found;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function parseEvent(block: string): ServerEvent | undefined {
  let event = 'message';
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith('event:')) event = line.slice(6).trim();
    else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
  }
  return data.length === 0 ? undefined : { event, data: data.join('\n') };
}

export interface Progress {
  done: number;
  total: number | null;
  note: string | null;
  waiting: boolean;
}

/** Long work: asked for in the background, followed by its events, cancelled on the server when the signal is. */
export async function job<T>(
  path: string,
  body: Record<string, unknown>,
  { signal, onProgress }: { signal?: AbortSignal | undefined; onProgress?: (progress: Progress) => void } = {},
): Promise<T> {
  const started = await json<Job<T>>(path, { method: 'POST', body: { ...body, background: true }, signal });
  const at = `/v1/jobs/${encodeURIComponent(started.id)}`;
  for (let tries = 0; ; tries++) {
    try {
      for await (const { data } of events(`${at}/events`, { signal })) {
        tries = 0;
        const state = JSON.parse(data) as Job<T>;
        onProgress?.({ ...state.progress, waiting: state.state === 'queued' });
        if (state.state === 'done') return state.result as T;
        if (state.state === 'failed') throw new ApiError(500, sentence(state.error?.message ?? 'The work failed on the server'));
        if (state.state === 'cancelled') throw new ApiError(0, 'The work was cancelled.');
      }
    } catch (error) {
      if (signal?.aborted) void json(at, { method: 'DELETE' }).catch(() => {});
      // The work goes on while nobody listens, so it is listened to again.
      if (!isUnreachable(error) || tries === reconnections) throw error;
      await new Promise((go) => setTimeout(go, 1000));
      continue;
    }
    throw new ApiError(0, 'The server stopped before the work was done. Try again.');
  }
}

/** How often a lost job is looked for again, once a second. */
const reconnections = 20;
