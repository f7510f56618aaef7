/** A server on mini-llava for the tests of one file, and short ways to ask it. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type RunningServer, type ServerOptions, startServer } from '../../apps/server/index.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any route
  json: any;
}

export interface Harness {
  server: RunningServer;
  folder: string;
  records: EditRecord[];
  /** what `ask` asked, and what came */
  asked: { method: string; path: string; status: number; type: string }[];
  ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>;
  close(): Promise<void>;
}

export const dataUrl = (path: string): string => `data:image/png;base64,${readFileSync(path).toString('base64')}`;

export async function ask(
  url: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const given = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) };
  const response = await fetch(url + path, {
    method,
    ...given,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
  });
  const text = await response.text();
  const type = response.headers.get('content-type') ?? '';
  return { status: response.status, headers: response.headers, text, json: type.includes('json') ? JSON.parse(text) : undefined };
}

export async function startHarness(options: Partial<ServerOptions> = {}): Promise<Harness> {
  const folder = temporaryFolder();
  const world = await writeTinyWorld(join(folder, 'world'), { vqaTrain: 0 });
  const server = await startServer({
    models: ['mini-llava'],
    dataDir: join(folder, 'data'),
    host: '127.0.0.1',
    port: 0,
    threads: 1,
    drain: 5,
    // Cards that are asked again take turns that the tests of other work count on.
    measure: 'none',
    datasets: [{ data: world.test, images: world.images }],
    ...options,
  }).catch((error: unknown) => {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  });
  const asked: Harness['asked'] = [];
  return {
    server,
    folder,
    records: loadRecords(world.test, world.images),
    asked,
    ask: async (method, path, body, headers) => {
      const answer = await ask(server.url, method, path, body, headers);
      const type = (answer.headers.get('content-type') ?? '').split(';')[0]!;
      asked.push({ method, path, status: answer.status, type });
      return answer;
    },
    close: async () => {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A request that VEAD makes the answer of. */
export function requestOf({ request }: EditRecord): { image: string; prompt: string; target: string } {
  return { image: dataUrl(request.image), prompt: request.prompt, target: request.target };
}

/** Chat messages of one question. */
export const messages = (prompt: string, image?: string) => [
  {
    role: 'user' as const,
    content: [
      ...(image === undefined ? [] : [{ type: 'image_url' as const, image_url: { url: image } }]),
      { type: 'text' as const, text: prompt },
    ],
  },
];

export const isErrorBody = (json: unknown): boolean => {
  const error = (json as { error?: Record<string, unknown> } | undefined)?.error;
  return (
    typeof error?.message === 'string' &&
    error.message.length > 0 &&
    typeof error.type === 'string' &&
    typeof error.code === 'string' &&
    (error.param === null || typeof error.param === 'string')
  );
};
