/** `POST /v1/plans`: the layer to insert an editor of visual tokens after, with the evidence. */

import { createRoute, z } from '@hono/zod-openapi';
import { type EditPlan, planPanel } from '../../../src/attribution/plan.ts';
import { ApiError } from '../errors.ts';
import { background, body, drawings, format, workAnswers } from '../http/schemas.ts';
import type { AddRoutes } from './app-types.ts';
import { formatOf, respond } from './respond.ts';

const request = z
  .strictObject({
    model: z.string().min(1).max(200).openapi({ description: 'an unedited model' }),
    dataset: z.string().max(200).openapi({ description: 'a data set of this server' }),
    records: z.int().min(2).max(256).default(32).openapi({ description: 'so many of its first records are read' }),
    format: format.optional(),
    background: background.optional(),
  })
  .openapi('PlanRequest');

const numbers = z.array(z.number()).readonly();
const plan = z
  .object({
    object: z.literal('plan'),
    model: z.string(),
    layer: z.int(),
    traced: z.array(z.int()).readonly().openapi({ description: 'layers behind it that read what the editor writes' }),
    evidence: z.object({
      carried: numbers.openapi({ description: 'share of another picture’s answer that its visual tokens carry, by layer' }),
      attention: numbers.openapi({ description: 'mean contribution of attention, by layer' }),
      pairs: z.int().openapi({ description: 'pairs of pictures with different answers' }),
    }),
  })
  .openapi('Plan');

const route = createRoute({
  method: 'post',
  path: '/v1/plans',
  summary: 'Where to insert an editor of visual tokens, from the records of a data set',
  request: { body: body(request) },
  responses: workAnswers(200, 'the layer and the evidence; a drawing with `format` or the Accept header', plan, ...drawings),
});

const inWords = ({ layer, traced, evidence: { pairs } }: EditPlan): string =>
  `Insert after layer ${layer}; layers that read what is written: ${traced.join(', ')}. From ${pairs} pairs of pictures with different answers.`;

const tableOf = ({ evidence: { carried, attention } }: EditPlan) => ({
  head: ['layer', 'carried by the picture', 'attention'],
  rows: carried.map((share, i) => [i, share, attention[i]!]),
});

export const addPlans: AddRoutes = (app, services) => {
  app.openapi(route, async (c) => {
    const { model, dataset, records, format: field, background: later } = c.req.valid('json');
    if (!services.models.includes(model))
      throw new ApiError(404, 'model_not_found', `there is no unedited model ${JSON.stringify(model)}`, { param: 'model' });
    const found = await services.datasets.get(dataset);
    const inputs = found.records.slice(0, records).map(({ request: { prompt, image } }) => ({ prompt, path: image }));
    return (await respond(c, services, {
      kind: 'plan',
      background: later,
      format: formatOf(c, field),
      work: ({ signal, onProgress, onStart }) =>
        services.inTurn('long', { signal, onStart }, (own) => services.inEngine('plan', { model, inputs }, own, onProgress)),
      show: (made) => ({ object: 'plan', model, ...made }),
      draw: (made) => ({ panels: [planPanel(model, made)], columns: 1, said: [inWords(made)], table: tableOf(made) }),
    })) as never;
  });
};
