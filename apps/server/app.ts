/** The application: all routes, behind the checks that every request passes. */

import { randomUUID } from 'node:crypto';
import { OpenAPIHono } from '@hono/zod-openapi';
import { compress } from 'hono/compress';
import { HTTPException } from 'hono/http-exception';
import { methodNotAllowed } from 'hono/method-not-allowed';
import { routePath } from 'hono/route';
import { ZodError } from 'zod';
import { ApiError, isStop } from './errors.ts';
import { checkBody, checkDraining, checkHost, checkKey, checkOrigin } from './http/guards.ts';
import { refusal } from './http/schemas.ts';
import type { App, AppEnv, Ctx } from './routes/app-types.ts';
import { addAttributions } from './routes/attributions.ts';
import { addChat } from './routes/chat.ts';
import { addComparisons } from './routes/comparisons.ts';
import { addConflicts } from './routes/conflicts.ts';
import { addDatasets } from './routes/datasets.ts';
import { addEdits } from './routes/edits.ts';
import { addExplanations } from './routes/explanations.ts';
import { addJobs } from './routes/jobs.ts';
import { addModels } from './routes/models.ts';
import { addPlans } from './routes/plans.ts';
import { addRuns } from './routes/runs.ts';
import { addService } from './routes/service.ts';
import type { Services } from './services.ts';
import { addStudio } from './studio.ts';

/** One line for each group of routes. */
const groups = [
  addService,
  addModels,
  addChat,
  addEdits,
  addConflicts,
  addAttributions,
  addExplanations,
  addPlans,
  addComparisons,
  addDatasets,
  addRuns,
  addJobs,
];

/** Answers run no scripts and are shown in no other page. An SVG that is opened by itself may use its own styles and pictures. */
const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'none'; sandbox";

export function buildApp(services: Services): App {
  const { options, limits, metrics, logger } = services;
  const app: App = new OpenAPIHono<AppEnv>({
    defaultHook: (result) => {
      if (!result.success) throw refusal(result.error as ZodError);
    },
  });

  app.use('*', async (c, next) => {
    const began = performance.now();
    const id = randomUUID();
    c.set('requestId', id);
    await next();
    c.res.headers.set('x-request-id', id);
    c.res.headers.set('x-content-type-options', 'nosniff');
    c.res.headers.set('referrer-policy', 'no-referrer');
    c.res.headers.set('cross-origin-resource-policy', 'same-origin');
    if (!c.res.headers.has('content-security-policy')) c.res.headers.set('content-security-policy', policy);
    const seconds = (performance.now() - began) / 1000;
    // The log has the pattern of the route, not the path: paths contain names that clients chose.
    const route = c.res.status === 404 ? 'none' : routePath(c, -1);
    metrics.request(c.req.method, route, c.res.status, seconds);
    logger.info({ id, method: c.req.method, route, status: c.res.status, ms: Math.round(seconds * 1000) }, 'request');
  });
  // Around all that makes answers. Events, pictures and small answers stay as they are: it looks at type and length.
  app.use('*', compress());
  app.use(
    '*',
    checkDraining(() => services.draining),
  );
  app.use('*', checkHost([options.host, ...(options.allowHosts ?? [])]));
  app.use('*', checkOrigin(options.allowOrigins ?? []));
  app.use('*', checkKey(options.key));
  app.use(
    '*',
    methodNotAllowed({
      app,
      onMethodNotAllowed: (c, methods) =>
        respondError(
          c as Ctx,
          new ApiError(405, 'method_not_allowed', `${c.req.method} is not possible here; possible: ${methods.join(', ')}`, {
            headers: { allow: methods.join(', ') },
          }),
        ),
    }),
  );
  app.use('*', async (c, next) => {
    const path = c.req.path;
    // Only routes of the API read a body.
    await (path.startsWith('/v1/') ? checkBody(limits, services.bodies)(c, next) : next());
  });

  for (const add of groups) add(app, services);
  if (options.studio !== undefined) addStudio(app, options.studio);

  app.notFound((c) =>
    respondError(c, new ApiError(404, 'not_found', `there is nothing at ${c.req.method} ${c.req.path.slice(0, 200)}`)),
  );
  app.onError((error, c) => {
    if (error instanceof ZodError) return respondError(c, refusal(error));
    if (error instanceof HTTPException) return respondError(c, ofHono(error));
    // The client has left. Nobody reads this answer, but the log counts it.
    if (isStop(error) && c.req.raw.signal.aborted) return c.body(null, 499 as never);
    return respondError(c, services.asError(error));
  });
  return app;
}

const respondError = (c: Ctx, error: ApiError): Response => c.json(error.body(), error.status, { ...error.headers });

function ofHono({ status, message }: HTTPException): ApiError {
  if (status === 415)
    return new ApiError(415, 'unsupported_media_type', 'bodies are JSON: send the header "Content-Type: application/json"');
  return new ApiError(status === 400 ? 400 : 500, status === 400 ? 'invalid_value' : 'internal', message);
}
