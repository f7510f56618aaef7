/** What every request passes before its route: who may ask, from where, and how much. */

import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import type { MiddlewareHandler } from 'hono';
import type { Budget } from '../budget.ts';
import { ApiError } from '../errors.ts';
import type { Limits } from '../options.ts';
import type { AppEnv } from '../routes/app-types.ts';
import { parseHost, parseOrigin } from './host.ts';
import { parseJson } from './json.ts';

/** Routes that tell whether the server is well: no key, and answered while it drains. */
const health = new Set(['/healthz', '/readyz']);
/** What the key protects; anything else is a file of the web app. */
const guarded = (path: string): boolean => /^\/(v1(\/|$)|metrics$|openapi\.json$|docs$)/.test(path);

/** Refuses host names that the operator did not allow: a page could make its own name lead to this machine. */
export function checkHost(allowed: readonly string[]): MiddlewareHandler {
  const names = new Set(['localhost', ...allowed.map((name) => parseHost(name).name.replace(/^\[|\]$/g, ''))]);
  return async (c, next) => {
    const name = hostName(c.req.header('host'));
    if (name === undefined || !(isIP(name) !== 0 || names.has(name)))
      throw new ApiError(
        403,
        'forbidden_host',
        'this server is not reached by this name; start it with --allow-host NAME to allow it',
      );
    await next();
  };
}

function hostName(host: string | undefined): string | undefined {
  const found = /^(\[[0-9a-f:.]+\]|[\w.-]+?)\.?(:\d{1,5})?$/i.exec(host ?? '');
  return found?.[1]?.replace(/^\[|\]$/g, '').toLowerCase();
}

/**
 * Refuses pages of other origins, unless the list names them. Browsers send the origin only when a script asks. For pictures, frames and links
 * they send Fetch Metadata, which say whether the page belongs to another site. A link may lead to a page of the web app.
 */
export function checkOrigin(given: readonly string[]): MiddlewareHandler {
  const allowed = given.map(parseOrigin);
  const refuse = (): ApiError =>
    new ApiError(
      403,
      'forbidden_origin',
      'pages of this origin may not use this server; start it with --allow-origin to allow it',
    );
  return async (c, next) => {
    const origin = c.req.header('origin');
    if (origin === undefined) {
      const fromElsewhere = ['cross-site', 'same-site'].includes(c.req.header('sec-fetch-site') ?? 'none');
      const isLink = c.req.header('sec-fetch-mode') === 'navigate' && c.req.header('sec-fetch-dest') === 'document';
      if (fromElsewhere && !(isLink && c.req.method === 'GET' && !guarded(c.req.path))) throw refuse();
      return next();
    }
    if (sameOrigin(origin, c.req.header('host'))) return next();
    if (!allowed.includes(origin)) throw refuse();
    if (c.req.method === 'OPTIONS') {
      c.res = new Response(null, {
        status: 204,
        headers: {
          'access-control-allow-methods': 'GET, POST, PATCH, DELETE',
          'access-control-allow-headers': c.req.header('access-control-request-headers') ?? 'authorization, content-type',
          'access-control-max-age': '600',
        },
      });
    } else await next();
    c.res.headers.set('access-control-allow-origin', origin);
    c.res.headers.set('access-control-expose-headers', 'retry-after, x-request-id');
    c.res.headers.append('vary', 'origin');
  };
}

function sameOrigin(origin: string, host: string | undefined): boolean {
  try {
    const { protocol, host: of } = new URL(origin);
    return (protocol === 'http:' || protocol === 'https:') && of === host?.toLowerCase();
  } catch {
    return false;
  }
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Compares hashes, so that the time tells nothing about the key or its length. */
export function checkKey(key: string | undefined): MiddlewareHandler {
  const wanted = key === undefined ? undefined : digest(key);
  return async (c, next) => {
    if (wanted !== undefined && guarded(c.req.path)) {
      const given = /^Bearer +(\S+)$/i.exec(c.req.header('authorization') ?? '')?.[1];
      if (given === undefined)
        throw new ApiError(401, 'missing_api_key', 'this server needs a key: send the header "Authorization: Bearer KEY"', {
          headers: { 'www-authenticate': 'Bearer realm="visedit"' },
        });
      if (!timingSafeEqual(digest(given), wanted))
        throw new ApiError(401, 'invalid_api_key', 'the key is wrong', {
          headers: { 'www-authenticate': 'Bearer realm="visedit", error="invalid_token"' },
        });
    }
    await next();
  };
}

/** @param draining whether the server takes no new requests */
export function checkDraining(draining: () => boolean): MiddlewareHandler {
  return async (c, next) => {
    if (draining() && !health.has(c.req.path))
      throw new ApiError(503, 'draining', 'the server is about to stop and takes no new requests; try again soon', {
        retryAfter: 5,
      });
    await next();
  };
}

/** A body with more bytes than this takes them from the budget. */
const large = 1_000_000;
/** Milliseconds that a large body waits for its bytes. */
const patience = 60_000;

/** Reads the JSON body within its limits. @param bodies large bodies take their bytes from this budget before they are read */
export function checkBody(
  limits: Pick<Limits, 'bodyBytes' | 'jsonDepth' | 'jsonValues'>,
  bodies: Budget,
): MiddlewareHandler<AppEnv> {
  const { bodyBytes } = limits;
  const tooLarge = (): ApiError =>
    new ApiError(413, 'body_too_large', `the body has more than the ${bodyBytes} bytes that are allowed; send a smaller picture`);
  return async (c, next) => {
    const { method, raw } = c.req;
    if (method !== 'POST' && method !== 'PATCH') return next();
    const length = c.req.header('content-length');
    if (length !== undefined && Number(length) > bodyBytes) throw tooLarge();
    if (raw.body === null || length === '0')
      throw new ApiError(400, 'invalid_json', 'the request has no body; send one JSON object');
    const type = c.req.header('content-type') ?? '';
    if (!/^application\/json\s*(;.*)?$/i.test(type))
      throw new ApiError(415, 'unsupported_media_type', 'bodies are JSON: send the header "Content-Type: application/json"');
    if (!['identity', undefined].includes(c.req.header('content-encoding')?.toLowerCase()))
      throw new ApiError(415, 'unsupported_encoding', 'bodies are not compressed: send it without Content-Encoding');
    const size = length === undefined ? bodyBytes : Number(length);
    const release = size > large ? await takeBody(bodies, size, raw.signal) : () => {};
    let isHeld = false;
    c.set('holdBody', () => {
      isHeld = true;
      return release;
    });
    try {
      const bytes = await readBody(raw.body as unknown as AsyncIterable<Uint8Array>, bodyBytes);
      if (bytes === undefined) throw tooLarge();
      const value = parseJson(textOf(bytes), limits);
      // Routes get this value instead of reading the body again.
      c.req.json = () => Promise.resolve(value) as Promise<never>;
      await next();
    } finally {
      if (!isHeld) release();
    }
  };
}

/** @throws ApiError 429 when others hold their bodies for long */
async function takeBody(bodies: Budget, size: number, client: AbortSignal): Promise<() => void> {
  const late = AbortSignal.timeout(patience);
  try {
    return await bodies.take(size, AbortSignal.any([client, late]));
  } catch (error) {
    if (client.aborted) throw error;
    throw new ApiError(429, 'queue_full', 'too many large requests wait to be read; try again soon', { retryAfter: 30 });
  }
}

/** undefined: it is longer than allowed. A length may be missing, or wrong. */
async function readBody(body: AsyncIterable<Uint8Array>, most: number): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > most) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new ApiError(400, 'invalid_json', 'the body is not written in UTF-8');
  }
}
