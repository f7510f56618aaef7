/** `GET /v1/tools` lists the tools that explain an answer with their options, `POST /v1/explanations` runs one. */

import { createRoute, z } from '@hono/zod-openapi';
import { tools } from '../../../src/attribution/tools/index.ts';
import type { Explanation, ModelUnder } from '../engine/tasks.ts';
import { ApiError } from '../errors.ts';
import {
  answers,
  background,
  body,
  drawings,
  format,
  image,
  list,
  modelRef,
  promptText,
  seed,
  token,
  workAnswers,
} from '../http/schemas.ts';
import { modelUnder } from '../model-ref.ts';
import type { AddRoutes } from './app-types.ts';
import { formatOf, respond } from './respond.ts';

const tokenId = z.int().min(0).max(1e7);
const ids = tools.map(({ id }) => id);

const request = z
  .strictObject({
    model: modelRef,
    tool: z
      .string()
      .min(1)
      .max(40)
      .openapi({ description: `one of: ${ids.join(', ')}`, enum: ids }),
    prompt: promptText,
    image: image.optional(),
    answer: z.array(tokenId).max(4096).default([]).openapi({ description: 'token ids of the answer' }),
    position: z.int().min(0).max(4096).default(0).openapi({
      description: 'the explained token is this one of the answer, read behind those before it',
    }),
    key: z.union([z.string().min(1).max(200), tokenId], { error: 'must be the text or the id of a token' }).optional(),
    options: z
      .record(z.string().max(40), z.union([z.string().max(4000), z.number(), z.boolean()]))
      .default({})
      .openapi({
        description: 'options of the tool, as `visedit attribute TOOL --help` lists them',
      }),
    against_image: image.optional(),
    against_prompt: promptText.optional(),
    seed: seed.default(0),
    format: format.optional(),
    background: background.optional(),
  })
  .openapi('ExplanationRequest');

const explanation = z
  .object({
    object: z.literal('explanation'),
    model: z.string(),
    tool: z.string(),
    key: token,
    said: z.array(z.string()).openapi({ description: 'what was found, in sentences' }),
    table: z.object({ head: z.array(z.string()), rows: z.array(z.array(z.union([z.string(), z.number(), z.null()]))) }),
    matrix: z
      .object({
        ...{ rows: z.array(z.string()), columns: z.array(z.string()), what: z.string() },
        values: z.array(z.array(z.number().nullable())),
      })
      .optional(),
    data: z.record(z.string(), z.unknown()).openapi({ description: 'the numbers of the tool' }),
  })
  .openapi('Explanation');

const route = createRoute({
  method: 'post',
  path: '/v1/explanations',
  summary:
    'What a tool says about why a token is answered: lens, attention, heads, neurons, words, trace, patch, knockout, steer, check',
  request: { body: body(request) },
  responses: workAnswers(200, 'numbers; a drawing with `format` or the Accept header', explanation, ...drawings),
});

const listRoute = createRoute({
  method: 'get',
  path: '/v1/tools',
  summary: 'The tools that explain an answer, with their options',
  responses: answers(
    200,
    'tools, in the order of their pages',
    list(
      z
        .object({
          object: z.literal('tool'),
          id: z.string(),
          summary: z.string(),
          details: z.string(),
          picture: z.boolean().openapi({ description: 'whether it needs a picture' }),
          compares: z.enum(['must', 'may']).nullable().openapi({ description: 'whether it takes a second picture or prompt' }),
          options: z.record(z.string(), z.unknown()).openapi({ description: 'a JSON schema of `options`' }),
        })
        .openapi('Tool'),
    ),
  ),
});

const described = tools.map(({ id, summary, details, picture = false, compares = null, options }) => ({
  object: 'tool' as const,
  ...{ id, summary, details, picture, compares },
  options: { ...z.toJSONSchema(options, { io: 'input' }) } as Record<string, unknown>,
}));

export const addExplanations: AddRoutes = (app, services) => {
  app.openapi(listRoute, (c) => c.json({ object: 'list' as const, data: described }, 200));
  app.openapi(route, async (c) => {
    const asked = c.req.valid('json');
    const { model, tool, prompt, answer, position, key, options } = asked;
    const under = (): ModelUnder => modelUnder(model, services.models, services.store, 'model');
    under();
    if (position > answer.length)
      throw new ApiError(400, 'invalid_value', `the answer has ${answer.length} tokens, so position is at most that`, {
        param: 'position',
      });
    return (await respond(c, services, {
      kind: 'explanation',
      background: asked.background,
      format: formatOf(c, asked.format),
      work: ({ signal, onProgress, onStart }) =>
        services.inTurn('long', { signal, onStart }, (own) => {
          const sources = [
            ...(asked.image === undefined ? [] : [{ url: asked.image, param: 'image' }]),
            ...(asked.against_image === undefined ? [] : [{ url: asked.against_image, param: 'against_image' }]),
          ];
          return services.pictures.with(sources, own, (pictures) => {
            const picture = asked.image === undefined ? undefined : pictures[0];
            const other = asked.against_image === undefined ? undefined : pictures.at(-1);
            const order = {
              // The edits may have changed while the request waited.
              ...{ under: under(), tool, prompt, image: picture, answer, position, key, options, seed: asked.seed },
              against: { image: other, prompt: asked.against_prompt },
            };
            return services.inEngine('explanation', order, own, onProgress);
          });
        }),
      show: (found) => ({ object: 'explanation', model, ...shown(found) }),
      draw: ({ panels, said, table }) => ({ panels, columns: 1, said, table }),
    })) as never;
  });
};

const shown = ({ panels: _, ...found }: Explanation): object => found;
