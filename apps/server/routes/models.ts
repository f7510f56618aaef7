/** `/v1/models` and `/v1/editors`: the models that can be asked, and the editors that can correct them. */

import { createRoute, z } from '@hono/zod-openapi';
import { setId } from '../../../src/ledger/ledger.ts';
import { ApiError } from '../errors.ts';
import { answers, list } from '../http/schemas.ts';
import { modelNames } from '../model-ref.ts';
import type { Services } from '../services.ts';
import type { AddRoutes } from './app-types.ts';

const model = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.literal('visedit'),
    visedit: z.object({
      base: z.string(),
      set: z.string().nullable(),
      architecture: z.string(),
      layers: z.int(),
      hidden: z.int(),
      visual_tokens: z.int().nullable().describe('null where it depends on the picture'),
      patch_grid: z.tuple([z.int(), z.int()]).nullable(),
      image_size: z.tuple([z.int(), z.int()]).nullable(),
      vocabulary: z.int(),
      max_positions: z.int(),
      fingerprint: z.string(),
      both_ways: z.boolean().openapi({ description: 'whether tokens of one picture see each other in both directions' }),
      chat: z.object({ system: z.boolean(), turns: z.boolean(), pictures: z.boolean() }).nullable().openapi({
        description:
          'whether conversations may have a system message, earlier answers, several pictures; null without a template',
      }),
      edits: z.int().openapi({ description: 'that act' }),
    }),
  })
  .openapi('Model');

const editor = z
  .object({
    id: z.string(),
    summary: z.string(),
    trained: z.boolean(),
    combines: z.boolean(),
    explains: z.boolean(),
    weights: z.array(z.object({ model: z.string(), name: z.string() })),
  })
  .openapi('Editor');

const listRoute = createRoute({
  method: 'get',
  path: '/v1/models',
  summary: 'The unedited models, and each under its sets of edits',
  responses: answers(200, 'models', list(model)),
});
const oneRoute = createRoute({
  method: 'get',
  path: '/v1/models/{id}',
  summary: 'One model',
  request: { params: z.object({ id: z.string().max(300) }) },
  responses: answers(200, 'the model', model),
});
const editorsRoute = createRoute({
  method: 'get',
  path: '/v1/editors',
  summary: 'The editors, and the models that they can edit at once',
  responses: answers(200, 'editors', list(editor)),
});

export const addModels: AddRoutes = (app, services) => {
  app.openapi(listRoute, (c) =>
    c.json(
      { object: 'list' as const, data: modelNames(services.models, services.store).map((id) => describe(services, id)) },
      200,
    ),
  );
  app.openapi(oneRoute, (c) => {
    const { id } = c.req.valid('param');
    if (!modelNames(services.models, services.store).includes(id))
      throw new ApiError(404, 'model_not_found', `there is no model ${JSON.stringify(id)}`, { param: 'id' });
    return c.json(describe(services, id), 200);
  });
  app.openapi(editorsRoute, (c) =>
    c.json(
      {
        object: 'list' as const,
        data: services.facts.editors.map(({ weights, ...rest }) => ({ ...rest, weights: weights.map((one) => ({ ...one })) })),
      },
      200,
    ),
  );
};

function describe({ facts, store }: Services, id: string): z.infer<typeof model> {
  const set = store.sets.find((one) => setId(one) === id);
  const base = facts.models.find((one) => one.id === (set?.model ?? id))!;
  return {
    id,
    object: 'model',
    created: set?.history.revisions[0]?.at ?? 0,
    owned_by: 'visedit',
    visedit: {
      base: base.id,
      set: set?.name ?? null,
      architecture: base.architecture,
      layers: base.layers,
      hidden: base.hidden,
      visual_tokens: base.visualTokens,
      patch_grid: base.patchGrid === null ? null : [...base.patchGrid],
      image_size: base.imageSize === null ? null : [...base.imageSize],
      vocabulary: base.vocabulary,
      max_positions: base.maxPositions,
      fingerprint: base.fingerprint,
      both_ways: base.bothWays,
      chat: base.chat,
      edits: set === undefined ? 0 : set.history.entries.filter(({ enabled }) => enabled).length,
    },
  };
}
