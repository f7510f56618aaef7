/** `/v1/runs`: evaluations and trainings with their records and curves, and news while they run. */

import { setTimeout as sleep } from 'node:timers/promises';
import { createRoute, z } from '@hono/zod-openapi';
import { curves } from '../../../lab/reproduce/figures/training-curves.ts';
import type { AskedKind, QueryResult, RecordResult } from '../../../src/evaluation/metrics.ts';
import { ApiError } from '../errors.ts';
import { eventStream } from '../http/events.ts';
import { answers, drawings, file, format, list, order, page } from '../http/schemas.ts';
import { thinned } from '../runs.ts';
import type { AddRoutes } from './app-types.ts';
import { clientOf } from './app-types.ts';
import { sortedBy } from './datasets.ts';
import { formatOf, sendFigure } from './respond.ts';
import { watching } from './watching.ts';

const run = z
  .object({
    object: z.literal('run'),
    id: z.string(),
    kind: z.enum(['evaluation', 'training']),
    state: z.enum(['running', 'finished', 'stopped']),
    editor: z.string().nullable(),
    model: z.string().nullable(),
    data: z.string().nullable(),
    dataset: z.string().nullable(),
    finished: z.boolean(),
    started: z.string().nullable(),
    updated: z.number(),
    seconds: z.number().nullable(),
    count: z.int().nullable(),
    summary: z.record(z.string(), z.number()).nullable(),
    loss: z.number().nullable(),
    steps: z.object({ done: z.int(), total: z.int().nullable() }).nullable(),
  })
  .openapi('Run');

const params = z.object({ id: z.string().max(500) });
const sortable =
  /^(index|kind|edit|target|(reliability|textGenerality|modalGenerality|textLocality|modalLocality|sameImage|sameQuestion|noise|grey)\.(accuracy|exact|accuracyBefore|probability|text|textBefore))$/;
const after = z.coerce.number().int().min(0).max(1e9).default(0);

const routes = {
  list: createRoute({
    method: 'get',
    path: '/v1/runs',
    summary: 'Evaluations and trainings, the latest first',
    responses: answers(200, 'runs', list(run)),
  }),
  get: createRoute({
    method: 'get',
    path: '/v1/runs/{id}',
    summary: 'One run with its manifest and all its figures',
    request: { params },
    responses: answers(200, 'the run', run.extend({ manifest: z.unknown(), summary_full: z.unknown() })),
  }),
  records: createRoute({
    method: 'get',
    path: '/v1/runs/{id}/records',
    summary: 'Results of an evaluation, record by record',
    request: {
      params,
      query: z.strictObject({
        sort: z.string().regex(sortable, { error: 'is no column to sort by' }).default('index'),
        order: order.default('asc'),
        ...page,
      }),
    },
    responses: answers(200, 'lines of records.jsonl', list(z.unknown())),
  }),
  log: createRoute({
    method: 'get',
    path: '/v1/runs/{id}/log',
    summary: 'The curve of a training',
    request: {
      params,
      query: z.strictObject({
        after,
        points: z.coerce.number().int().min(2).max(10_000).default(1000),
        format: format.optional(),
      }),
    },
    responses: answers(
      200,
      'lines of log.jsonl, evenly thinned; a drawing with `format` or the Accept header',
      list(z.record(z.string(), z.number())),
      ...drawings,
    ),
  }),
  events: createRoute({
    method: 'get',
    path: '/v1/runs/{id}/events',
    summary: 'News of a run as they come',
    request: { params, query: z.strictObject({ after }) },
    responses: file('events `run` and `log`: the facts of the run, and new lines of its log', 'text/event-stream'),
  }),
};

/** Milliseconds between two looks at the files of a run. */
const everyMilliseconds = 1000;

export const addRuns: AddRoutes = (app, services) => {
  const { runs } = services;
  const shown = (facts: (typeof runs)['list'] extends () => (infer F)[] ? F : never): z.infer<typeof run> => ({
    ...facts,
    summary: facts.summary && { ...facts.summary },
  });

  app.openapi(routes.list, (c) => c.json({ object: 'list' as const, data: runs.list().map(shown) }, 200));
  app.openapi(routes.get, (c) => {
    const { facts, manifest, summary } = runs.get(c.req.valid('param').id);
    return c.json({ ...shown(facts), manifest, summary_full: summary }, 200);
  });
  app.openapi(routes.records, (c) => {
    const { sort, order: direction, offset, limit } = c.req.valid('query');
    const all = sortedBy(runs.records(c.req.valid('param').id), (one) => columnOf(one, sort), direction);
    return c.json({ object: 'list' as const, data: all.slice(offset, offset + limit), total: all.length, offset, limit }, 200);
  });
  app.openapi(routes.log, async (c) => {
    const { id } = c.req.valid('param');
    const { after: step, points, format: field } = c.req.valid('query');
    const lines = runs.log(id).filter((line) => line.step > step);
    const wanted = formatOf(c, field);
    if (wanted === 'json') return c.json({ object: 'list' as const, data: thinned(lines, points), total: lines.length }, 200);
    if (lines.length < 2) throw new ApiError(404, 'log_not_found', `${id} has no curve yet`, { param: 'id' });
    return (await sendFigure(c, curves([{ name: id, lines }]), wanted)) as never;
  });
  app.openapi(routes.events, (c) => {
    const { id } = c.req.valid('param');
    let { after: step } = c.req.valid('query');
    runs.get(id);
    const { signal, leave } = watching(services, clientOf(c));
    return eventStream(async (sink) => {
      let told = '';
      while (!signal.aborted) {
        const { facts } = runs.get(id);
        const lines = runs.log(id).filter((line) => line.step > step);
        if (lines.length > 0) {
          step = lines.at(-1)!.step;
          sink.event(thinned(lines, 1000), 'log');
        }
        const now = JSON.stringify(facts);
        if (now !== told) sink.event(facts, 'run');
        told = now;
        await sleep(everyMilliseconds, undefined, { signal }).catch(() => {});
      }
      leave();
    }, leave);
  });
};

function columnOf(result: RecordResult, column: string): string | number {
  const [first, field] = column.split('.') as [AskedKind, keyof QueryResult | undefined];
  if (field === undefined) return (result as unknown as Record<string, string | number | undefined>)[first] ?? '';
  const value = result.queries[first]?.[field];
  if (typeof value === 'object') return value[1];
  return value === undefined ? -1 : typeof value === 'boolean' ? Number(value) : value;
}
