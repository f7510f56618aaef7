/** `/v1/jobs`: clients watch and cancel long work here. */

import { createRoute, z } from '@hono/zod-openapi';
import { eventStream } from '../http/events.ts';
import { answers, file, jobSchema, list } from '../http/schemas.ts';
import { isEnded, type Job } from '../jobs.ts';
import type { AddRoutes } from './app-types.ts';
import { clientOf } from './app-types.ts';
import { watching } from './watching.ts';

const params = z.object({ id: z.string().max(100) });
const routes = {
  list: createRoute({
    method: 'get',
    path: '/v1/jobs',
    summary: 'Jobs, without their results',
    responses: answers(200, 'jobs', list(jobSchema)),
  }),
  get: createRoute({
    method: 'get',
    path: '/v1/jobs/{id}',
    summary: 'One job, with its result when it is done',
    request: { params },
    responses: answers(200, 'the job', jobSchema),
  }),
  remove: createRoute({
    method: 'delete',
    path: '/v1/jobs/{id}',
    summary: 'Cancel a job that is not finished, forget one that is',
    request: { params },
    responses: answers(200, 'the job', jobSchema),
  }),
  events: createRoute({
    method: 'get',
    path: '/v1/jobs/{id}/events',
    summary: 'News of a job until its end',
    request: { params },
    responses: file('events `progress`, and `end` with the result: jobs as JSON', 'text/event-stream'),
  }),
};

const plain = ({ result: _, ...job }: Job): z.infer<typeof jobSchema> => ({ ...job, progress: { ...job.progress } });
const whole = (job: Job): z.infer<typeof jobSchema> => ({ ...job, progress: { ...job.progress } });

export const addJobs: AddRoutes = (app, services) => {
  const { jobs } = services;
  app.openapi(routes.list, (c) => c.json({ object: 'list' as const, data: jobs.all.map(plain) }, 200));
  app.openapi(routes.get, (c) => c.json(whole(jobs.get(c.req.valid('param').id)), 200));
  app.openapi(routes.remove, (c) => c.json(plain(jobs.remove(c.req.valid('param').id)), 200));
  app.openapi(routes.events, (c) => {
    const { id } = c.req.valid('param');
    jobs.get(id);
    const { signal, leave } = watching(services, clientOf(c));
    return eventStream(async (sink) => {
      await new Promise<void>((resolve) => {
        let stop = (): void => {};
        const tell = (job: Job): void => {
          sink.event(isEnded(job) ? whole(job) : plain(job), isEnded(job) ? 'end' : 'progress');
          if (!isEnded(job)) return;
          stop();
          resolve();
        };
        stop = jobs.watch(id, tell);
        tell(jobs.get(id));
        signal.addEventListener(
          'abort',
          () => {
            stop();
            resolve();
          },
          { once: true },
        );
      });
      leave();
    }, leave);
  });
};
