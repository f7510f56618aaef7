/** Errors in the form that OpenAI's clients read: `{error: {message, type, param, code}}`. */

import { basename, dirname } from 'node:path';
import { FileChanged } from '../../src/files/changed.ts';
import { visible } from '../../src/files/visible.ts';
import { LedgerError } from '../../src/ledger/ledger.ts';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

export type ErrorStatus = 400 | 401 | 403 | 404 | 405 | 409 | 413 | 415 | 429 | 500 | 503 | 504 | 507;

const types: Record<ErrorStatus, string> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  405: 'invalid_request_error',
  409: 'conflict_error',
  413: 'invalid_request_error',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  500: 'server_error',
  503: 'server_error',
  504: 'timeout_error',
  507: 'server_error',
};

export interface ErrorOptions {
  /** the field that is wrong, as `messages.0.content` */
  readonly param?: string | undefined;
  /** seconds until it is worth asking again */
  readonly retryAfter?: number;
  /** of the response */
  readonly headers?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

/** An error whose message the client gets. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly param: string | undefined;
  readonly retryAfter: number | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    readonly status: ErrorStatus,
    readonly code: string,
    message: string,
    { param, retryAfter, headers, cause }: ErrorOptions = {},
  ) {
    super(message, { cause });
    this.param = param;
    this.retryAfter = retryAfter;
    this.headers = { ...(retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }), ...headers };
  }

  body(): ErrorBody {
    return { error: { message: visible(this.message), type: types[this.status], param: this.param ?? null, code: this.code } };
  }
}

/** The error that the client gets; undefined for a defect. */
export function toApiError(error: unknown): ApiError | undefined {
  if (error instanceof ApiError) return error;
  if (error instanceof LedgerError)
    return new ApiError(error.code.endsWith('_not_found') ? 404 : 409, error.code, error.message, { param: error.param });
  if (isStop(error)) return new ApiError(503, 'stopped', (error as Error).message);
  if (error instanceof FileChanged) {
    const file = `${basename(dirname(error.path))}/${basename(error.path)}`;
    const message = `${file} was changed on the disk while this server had it open; the server must be started again`;
    return new ApiError(503, 'weights_changed', message, { cause: error });
  }
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    if (['ENOSPC', 'EDQUOT'].includes((at as NodeJS.ErrnoException).code ?? ''))
      return new ApiError(
        507,
        'storage_full',
        'the server has no space left to keep this, and nothing was changed; delete some edits',
      );
  return undefined;
}

/** An error as it is sent from the engine's thread. */
export interface PlainError {
  readonly message: string;
  /** absent for a defect, whose message the client does not get */
  readonly status?: ErrorStatus;
  readonly code?: string;
  readonly param?: string | undefined;
  readonly stack?: string | undefined;
}

export function plainError(error: unknown): PlainError {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const told = isStop(error) ? undefined : toApiError(error);
  if (told === undefined) return { message, stack };
  return { message: told.message, status: told.status, code: told.code, param: told.param, stack };
}

export function fromPlainError({ message, status, code = 'error', param, stack }: PlainError): Error {
  if (status !== undefined) return new ApiError(status, code, message, { param });
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}

/**
 * Runs a check of the client's input and turns its error into an error of the request.
 * @param path of a file on this machine, which the message must not name
 */
export async function clientsFault<T>(
  code: string,
  param: string | undefined,
  check: () => T | Promise<T>,
  path?: string,
): Promise<T> {
  try {
    return await check();
  } catch (error) {
    if (error instanceof ApiError || error instanceof FileChanged || isStop(error)) throw error;
    const { message } = error as Error;
    // Messages of the language's own errors are not written for clients.
    const raw = [TypeError, RangeError, SyntaxError, ReferenceError].some((kind) => error instanceof kind);
    const told = raw ? 'it cannot be used' : message;
    throw new ApiError(400, code, path === undefined ? told : told.replaceAll(path, 'the file'), { param, cause: error });
  }
}

/** Whether work ended because somebody stopped it. */
export const isStop = (error: unknown): boolean => error instanceof Error && error.name === 'AbortError';

/** Reason of an abort: the client left, a job was cancelled. */
export function stopped(message: string): Error {
  const error = new Error(message);
  error.name = 'AbortError';
  return error;
}
