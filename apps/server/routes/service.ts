/** Whether the server is well, what it is, and how it is used. */

import { versions } from '../../../src/evaluation/manifest.ts';
import type { AddRoutes } from './app-types.ts';

export const addService: AddRoutes = (app, services) => {
  app.get('/healthz', (c) => c.json({ status: 'ok' }));
  app.get('/readyz', (c) => {
    const ready = !services.draining && services.facts.models.length > 0;
    return c.json({ status: ready ? 'ready' : services.draining ? 'draining' : 'starting' }, ready ? 200 : 503);
  });
  app.get('/metrics', async (c) =>
    c.body(await services.metrics.registry.metrics(), 200, { 'content-type': services.metrics.registry.contentType }),
  );
  app.get('/v1/server', (c) => {
    const { options, limits, queue } = services;
    return c.json({
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
    });
  });
  app.get('/openapi.json', (c) =>
    c.json(
      app.getOpenAPI31Document({
        openapi: '3.1.0',
        info: {
          title: 'visedit',
          version: versions().visedit,
          description:
            'Vision-language models, why they answer as they do, and corrections of their answers. Chat is as OpenAI’s clients ask it.',
        },
        security: options(services.options.key),
      }),
    ),
  );
  app.openAPIRegistry.registerComponent('securitySchemes', 'key', { type: 'http', scheme: 'bearer' });
  app.get('/docs', (c) => {
    const { paths = {} } = app.getOpenAPI31Document({
      openapi: '3.1.0',
      info: { title: 'visedit', version: versions().visedit },
    });
    const rows = Object.entries(paths).flatMap(([path, item]) =>
      (['get', 'post', 'patch', 'delete'] as const).flatMap((method) => {
        const operation = item?.[method];
        return operation === undefined ? [] : [[method.toUpperCase(), path, operation.summary ?? '']];
      }),
    );
    return c.html(page(rows), 200, { 'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'" });
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
