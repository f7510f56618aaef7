/** Routes about the server itself: health, limits, metrics, and the description of the API. */

import { createRoute, z } from '@hono/zod-openapi';
import { versions } from '../../../src/evaluation/manifest.ts';
import { answers, file } from '../http/schemas.ts';
import type { AddRoutes } from './app-types.ts';

const health = z.object({ status: z.enum(['ok', 'ready', 'draining', 'starting']) });
const queue = z.object({ running: z.int(), waiting: z.int(), limit: z.int() });
const server = z
  .object({
    version: z.string(),
    models: z.array(z.string()),
    key: z.boolean().openapi({ description: 'whether a key is needed' }),
    runs: z.boolean().openapi({ description: 'whether there are folders of evaluations and trainings' }),
    limits: z.object({
      body_bytes: z.int(),
      pixels: z.int(),
      max_tokens: z.int(),
      prompt_characters: z.int(),
      queries: z.int(),
      edits_per_set: z.int(),
    }),
    queue,
  })
  .openapi('Server');
/** Routes that need no key. */
const open = { security: [] };
const routes = {
  healthz: createRoute({
    method: 'get',
    path: '/healthz',
    summary: 'Whether the server lives',
    ...open,
    responses: answers(200, 'it does', health),
  }),
  readyz: createRoute({
    method: 'get',
    path: '/readyz',
    summary: 'Whether the server takes requests',
    ...open,
    responses: {
      ...answers(200, 'it does', health),
      503: { description: 'it starts or stops', content: { 'application/json': { schema: health } } },
    },
  }),
  metrics: createRoute({
    method: 'get',
    path: '/metrics',
    summary: 'Figures for Prometheus',
    responses: file('figures', 'text/plain'),
  }),
  server: createRoute({
    method: 'get',
    path: '/v1/server',
    summary: 'What this server is, and its limits',
    responses: answers(200, 'the server', server),
  }),
  description: createRoute({
    method: 'get',
    path: '/openapi.json',
    summary: 'This description of all routes',
    responses: answers(200, 'OpenAPI 3.1', z.record(z.string(), z.unknown())),
  }),
  docs: createRoute({
    method: 'get',
    path: '/docs',
    summary: 'The routes, as a page',
    responses: file('a page', 'text/html'),
  }),
};

export const addService: AddRoutes = (app, services) => {
  app.openapi(routes.healthz, (c) => c.json({ status: 'ok' as const }, 200));
  app.openapi(routes.readyz, (c) => {
    const ready = !services.draining && services.facts.models.length > 0;
    return ready
      ? c.json({ status: 'ready' as const }, 200)
      : c.json({ status: services.draining ? ('draining' as const) : ('starting' as const) }, 503);
  });
  app.openapi(routes.metrics, async (c) =>
    c.body(await services.metrics.registry.metrics(), 200, { 'content-type': services.metrics.registry.contentType }),
  );
  app.openapi(routes.server, (c) => {
    const { options, limits, queue } = services;
    return c.json(
      {
        version: versions().visedit,
        models: services.models,
        key: options.key !== undefined,
        runs: (options.runs ?? []).length > 0,
        limits: {
          body_bytes: limits.bodyBytes,
          pixels: limits.pixels,
          max_tokens: limits.maxTokens,
          prompt_characters: limits.promptCharacters,
          queries: limits.queries,
          edits_per_set: limits.editsPerSet,
        },
        queue: { running: queue.running, waiting: queue.waiting, limit: queue.limit },
      },
      200,
    );
  });
  const describe = () =>
    app.getOpenAPI31Document({
      openapi: '3.1.0',
      info: {
        title: 'visedit',
        version: versions().visedit,
        description:
          'Vision-language models, why they answer as they do, and corrections of their answers. Chat is as OpenAI’s clients ask it.',
      },
      security: options(services.options.key),
    });
  app.openapi(routes.description, (c) => c.json({ ...describe() }, 200));
  app.openAPIRegistry.registerComponent('securitySchemes', 'key', { type: 'http', scheme: 'bearer' });
  app.openapi(routes.docs, (c) => {
    const rows = Object.entries(describe().paths ?? {}).flatMap(([path, item]) =>
      (['get', 'post', 'patch', 'delete'] as const).flatMap((method) => {
        const operation = item?.[method];
        return operation === undefined ? [] : [[method.toUpperCase(), path, operation.summary ?? '']];
      }),
    );
    return c.html(page(rows), 200, {
      'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    });
  });
};

const options = (key: string | undefined): Record<string, string[]>[] => (key === undefined ? [] : [{ key: [] }]);

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

const page = (rows: readonly (readonly string[])[]): string => `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>visedit: HTTP interface</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}td{padding:.2rem .8rem .2rem 0;vertical-align:top}code{white-space:nowrap}</style>
<h1>visedit: HTTP interface</h1>
<p>Every field of every route is described in <a href="/openapi.json">openapi.json</a>. Errors are
<code>{"error": {"message", "type", "param", "code"}}</code>.</p>
<table>${rows.map(([method, path, summary]) => `<tr><td><code>${method}</code><td><code>${escaped(path!)}</code><td>${escaped(summary!)}`).join('\n')}</table></html>
`;
