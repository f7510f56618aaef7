/** Requests to the server, as text: `METHOD PATH`, then the body. The whole server answers, with its engine and mini-llava; nothing goes over the network. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaultLimits, startServer } from '../../apps/server/index.ts';
import { tools } from '../../src/attribution/tools/index.ts';
import type { Target } from './targets.ts';

const picture =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const model = 'mini-llava';
const chat = [
  {
    role: 'user',
    content: [
      { type: 'image_url', image_url: { url: picture } },
      { type: 'text', text: 'what is it?' },
    ],
  },
];
const asked = { model, image: picture, prompt: 'what is it?' };

const seeds: readonly (readonly [string, unknown?])[] = [
  [
    'POST /v1/chat/completions',
    { model, messages: chat, max_tokens: 1, logprobs: true, top_logprobs: 2, temperature: 0.5, seed: 1, stop: ['x'] },
  ],
  [
    'POST /v1/chat/completions',
    { model, messages: [{ role: 'user', content: 'hi' }], max_tokens: 1, stream: true, stream_options: { include_usage: true } },
  ],
  ['POST /v1/edits', { ...asked, editor: 'vead', target: 'dog', set: 'a', note: 'n', probes: 'none' }],
  [
    'POST /v1/chat/completions',
    {
      ...{ model: `${model}@a`, max_tokens: 1 },
      messages: [{ role: 'system', content: 's' }, ...chat, { role: 'assistant', content: 'x' }, { role: 'user', content: [] }],
    },
  ],
  ...tools.map(({ id }): [string, unknown] => [
    'POST /v1/explanations',
    {
      ...asked,
      tool: id,
      key: 'do',
      answer: [1],
      position: 0,
      seed: 1,
      options: { layer: 1, layers: '0-1', steps: 1, draws: 1 },
    },
  ]),
  ['POST /v1/explanations', { ...asked, tool: 'patch', against_image: picture, against_prompt: 'who?', format: 'json' }],
  ['POST /v1/edits', { model, set: 'a', file: 'data:application/octet-stream;base64,AAAA', image: picture, background: false }],
  ['POST /v1/conflicts', { ...asked, set: 'a', target: 'cat' }],
  ['POST /v1/plans', { ...asked, target: 'cat', layers: [0] }],
  ['POST /v1/attributions', { ...asked, key: 'do', parts: ['modules'], layers: [0], draws: 1, format: 'json' }],
  [
    'POST /v1/comparisons',
    { before: model, after: model, queries: [{ kind: 'k', prompt: 'x', target: 'y' }], max_tokens: 1, top_logprobs: 1 },
  ],
  ...[
    '/v1/models',
    '/v1/tools',
    '/v1/editors',
    '/v1/edits?limit=1&set=a',
    '/v1/sets',
    '/v1/sets/a',
    '/v1/jobs',
    '/v1/jobs/x',
    '/v1/datasets',
    '/v1/runs',
  ].map((path) => [`GET ${path}`] as const),
  ...[
    '/v1/datasets/x/records?offset=1&limit=2',
    '/v1/runs/x/log?points=3',
    '/openapi.json',
    '/metrics',
    '/healthz',
    '/readyz',
    '/studio/',
  ].map((path) => [`GET ${path}`] as const),
  ['PATCH /v1/edits/x', { enabled: false, note: 'n' }],
  ['DELETE /v1/edits/x'],
  ['POST /v1/sets/a/revert', { to: 0 }],
];

export async function requests(): Promise<Target> {
  const dataDir = mkdtempSync(join(tmpdir(), 'visedit-fuzz-'));
  const server = await startServer({
    models: [model],
    dataDir,
    host: '127.0.0.1',
    port: 0,
    threads: 1,
    drain: 1,
    limits: { ...defaultLimits, maxTokens: 2, edits: 20 },
  });
  return {
    seeds: seeds.map(([line, body]) => Buffer.from(body === undefined ? line : `${line}\n${JSON.stringify(body)}`)),
    milliseconds: 10_000,
    async run(input) {
      const given = Buffer.from(input).toString('utf8');
      const end = given.indexOf('\n');
      const [method = '', path = ''] = (end < 0 ? given : given.slice(0, end)).split(' ');
      const url = `${server.url}${path.startsWith('/') ? path : `/${path}`}`;
      if (!/^(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS)$/.test(method) || !URL.canParse(url)) return;
      const body = end < 0 || method === 'GET' || method === 'HEAD' ? null : given.slice(end + 1);
      const answer = await server.app.fetch(
        new Request(url, { method, body, headers: { 'content-type': 'application/json', host: 'localhost' } }),
      );
      const text = await answer.text();
      if (answer.status === 500) throw new TypeError(`500: ${text}`);
      if (/\n\s+at .*:\d+:\d+/.test(text)) throw new TypeError(`a stack for the client: ${text}`);
    },
    async close() {
      await server.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
