/** A hub on this machine: the paths, headers and redirects of huggingface.co, and the ways in which a transfer can go wrong. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface HubOptions {
  /** files of ORG/NAME; those that end in .safetensors, .bin or .model are kept elsewhere, as large files are */
  files: Record<string, Buffer>;
  status?: number;
  errorCode?: string;
  /** cuts the connection after so many bytes of one answer, the first `times` times */
  cut?: { after: number; times: number };
  /** bytes per 10 ms */
  trickle?: number;
  /** as a plain file server does: no HEAD, no ranges */
  plain?: boolean;
  /** another hub where large files lie */
  store?: string;
  /** changes what is sent, not what is announced */
  damage?: boolean;
}

export interface Hub {
  endpoint: string;
  options: HubOptions;
  requests: { method: string; path: string; range: string | undefined; authorization: string | undefined }[];
  close(): Promise<void>;
}

const isLarge = (name: string): boolean => /\.(safetensors|bin|model)$/.test(name);
const hex = (kind: string, data: Buffer): string => createHash(kind).update(data).digest('hex');

export async function startHub(options: HubOptions, id = 'org/model'): Promise<Hub> {
  const hub: Omit<Hub, 'endpoint' | 'close'> = { options, requests: [] };
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
    const { range, authorization } = request.headers;
    hub.requests.push({ method: request.method ?? '', path, range, authorization });
    answer(hub.options, id, path, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    ...hub,
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answer(options: HubOptions, id: string, path: string, request: IncomingMessage, response: ServerResponse): unknown {
  const fail = (status: number, code?: string): ServerResponse => {
    return response.writeHead(status, code === undefined ? {} : { 'x-error-code': code }).end('no');
  };
  if (options.status !== undefined) return fail(options.status, options.errorCode);
  if (options.plain && request.method === 'HEAD') return fail(405);
  if (path === `/api/models/${id}/revision/main`) {
    const siblings = Object.keys(options.files).map((rfilename) => ({ rfilename }));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ id, sha: 'a'.repeat(40), siblings }));
    return;
  }
  const [, where, name] = new RegExp(`^/${id}/(resolve/main|elsewhere)/(.+)$`).exec(path) ?? [];
  const data = options.files[name ?? ''];
  if (data === undefined || name === undefined)
    return fail(404, path.includes('/resolve/') ? 'EntryNotFound' : 'RevisionNotFound');
  const etag = isLarge(name) ? hex('sha256', data) : hex('sha1', data);
  if (isLarge(name) && where !== 'elsewhere' && !options.plain) {
    response
      .writeHead(302, {
        location: `${options.store ?? ''}/${id}/elsewhere/${name}`,
        'x-linked-etag': `"${etag}"`,
        'x-linked-size': data.length,
        etag: '"of-the-redirect"',
      })
      .end();
    return;
  }
  const from = options.plain ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  response.writeHead(from > 0 ? 206 : 200, {
    'content-length': data.length - from,
    etag: `"${isLarge(name) ? 'of-the-store' : etag}"`,
    ...(from > 0 ? { 'content-range': `bytes ${from}-${data.length - 1}/${data.length}` } : {}),
  });
  if (request.method === 'HEAD') return response.end();
  const sent = Buffer.from(data.subarray(from));
  if (options.damage && isLarge(name)) sent[0]! ^= 1;
  return send(options, sent, response);
}

async function send(options: HubOptions, data: Buffer, response: ServerResponse): Promise<void> {
  const step = options.trickle ?? data.length;
  const cut = options.cut !== undefined && options.cut.times > 0 && data.length > options.cut.after ? options.cut : undefined;
  if (cut) cut.times--;
  response.flushHeaders();
  const end = cut ? cut.after : data.length;
  for (let at = 0; at < end && !response.destroyed; at += step) {
    response.write(data.subarray(at, Math.min(end, at + step)));
    await new Promise((resolve) => setTimeout(resolve, options.trickle === undefined ? 0 : 10));
  }
  if (!cut) response.end();
  // Lets what was written reach the other side first.
  else setTimeout(() => response.destroy(), 20);
}
