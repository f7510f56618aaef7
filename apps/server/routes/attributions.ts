/** `POST /v1/attributions`: which layers and which patches a token of an answer comes from. */

import { createRoute, z } from '@hono/zod-openapi';
import { mapDefaults } from '../../../src/attribution/visual-attribution.ts';
import type { Attribution, AttributionView, ModelUnder, NamedToken } from '../engine/tasks.ts';
import { ApiError } from '../errors.ts';
import { attributionFigure } from '../figures.ts';
import { background, body, drawings, format, image, modelRef, promptText, seed, token, workAnswers } from '../http/schemas.ts';
import { modelUnder } from '../model-ref.ts';
import type { AddRoutes } from './app-types.ts';
import { formatOf, respond } from './respond.ts';

const part = z.enum(['modules', 'visual', 'lens']);
const tokenId = z.int().min(0).max(1e7);

const request = z
  .strictObject({
    model: modelRef,
    prompt: promptText,
    image: image.optional(),
    answer: z.array(tokenId).max(4096).default([]).openapi({ description: 'token ids of the answer' }),
    position: z
      .int()
      .min(0)
      .max(4096)
      .default(0)
      .openapi({ description: 'the key token is this one of the answer, read behind those before it' }),
    key: z.union([z.string().min(1).max(200), tokenId], { error: 'must be the text or the id of a token' }).optional(),
    parts: z.array(part).min(1).max(3).optional(),
    layers: z.array(z.int().min(0).max(1000)).min(1).max(256).optional(),
    protocol: z.enum(['converged', 'paper']).optional().openapi({ description: 'converged, or paper where draws are given' }),
    error: z
      .number()
      .gt(0)
      .max(1)
      .default(mapDefaults.error)
      .openapi({ description: 'of a converged map: its largest standard error, as a share of its largest value' }),
    budget: z
      .int()
      .min(2)
      .max(1e6)
      .default(mapDefaults.budget)
      .openapi({ description: 'largest number of draws of a converged map' }),
    draws: z.int().min(1).max(100).optional().openapi({ description: "draws of the paper's protocol" }),
    sigma: z.union([z.literal('paper'), z.number().gt(0).max(1e6)], { error: 'must be a number above 0, or "paper"' }).optional(),
    noise_at: z.enum(['hidden', 'norm']).optional().openapi({ description: 'norm, or hidden with the protocol of the paper' }),
    seed: seed.default(0),
    top: z.int().min(1).max(20).default(5),
    before: z.boolean().default(false),
    format: format.optional(),
    background: background.optional(),
  })
  .openapi('AttributionRequest');

const numbers = z.array(z.number());
const byLayer = z.object({ attn: numbers, mlp: numbers, layer: numbers });
const view = {
  key: token.extend({ predicted: z.boolean() }),
  modules: z.object({ contribution: z.object({ attn: numbers, mlp: numbers }), prob: byLayer, logit: byLayer }).optional(),
  lens: z.array(z.object({ layer: z.int(), key_probability: z.number(), key_rank: z.int(), tokens: z.array(token) })).optional(),
  visual: z
    .object({
      grid: z.tuple([z.int(), z.int()]),
      seen: z.tuple([z.number(), z.number(), z.number(), z.number()]).openapi({
        description: 'the part of the picture that the grid covers: left, top, width, height as fractions of it',
      }),
      protocol: z.string(),
      noise_at: z.string(),
      patches_by: z.enum(['hiding', 'tokens']).openapi({
        description: 'hiding: each patch was hidden, since visual tokens are no patches; tokens: noise was put on visual tokens',
      }),
      layers: z.array(
        z.object({
          layer: z.int(),
          sigma: z.number(),
          draws: z.int(),
          converged: z.boolean(),
          carries_weight: z.boolean(),
          error: z.number(),
          errors: numbers,
          values: numbers,
          patches: numbers,
          sees: z.object({ window: z.int().nullable(), both_directions: z.boolean() }).optional().openapi({
            description:
              'given where the layer is not causal: how many tokens one sees (null: all before it), and whether tokens of one picture see each other in both directions',
          }),
        }),
      ),
    })
    .optional(),
};
const attribution = z
  .object({
    object: z.literal('attribution'),
    model: z.string(),
    prompt: z.string(),
    layers: z.array(z.int()),
    ...view,
    before: z.object(view).optional(),
    warnings: z.array(z.string()),
  })
  .openapi('Attribution');

const route = createRoute({
  method: 'post',
  path: '/v1/attributions',
  summary: 'Which layers and which parts of the picture a token of an answer comes from',
  request: { body: body(request) },
  responses: workAnswers(200, 'numbers; a drawing with `format` or the Accept header', attribution, ...drawings),
});

export const addAttributions: AddRoutes = (app, services) => {
  app.openapi(route, async (c) => {
    const asked = c.req.valid('json');
    const { model, prompt, answer, position, key, protocol, error, budget, draws, sigma, seed: from, top, before } = asked;
    const under = (): ModelUnder => modelUnder(model, services.models, services.store, 'model');
    under();
    if (position > answer.length)
      throw new ApiError(400, 'invalid_value', `the answer has ${answer.length} tokens, so position is at most that`, {
        param: 'position',
      });
    const layers = asked.layers && [...new Set(asked.layers)].sort((a, b) => a - b);
    const parts =
      asked.parts ?? (asked.image === undefined ? (['modules', 'lens'] as const) : (['modules', 'lens', 'visual'] as const));
    if (asked.image === undefined && parts.includes('visual'))
      throw new ApiError(400, 'invalid_value', 'visual attribution needs a picture', { param: 'image' });
    return (await respond(c, services, {
      kind: 'attribution',
      background: asked.background,
      format: formatOf(c, asked.format),
      work: ({ signal, onProgress, onStart }) =>
        services.inTurn('long', { signal, onStart }, (own) => {
          const sources = asked.image === undefined ? [] : [{ url: asked.image, param: 'image' }];
          return services.pictures.with(sources, own, async ([picture]) => {
            const order = {
              // The edits may have changed while the request waited.
              under: under(),
              prompt,
              image: picture,
              answer,
              position,
              key,
              parts,
              layers,
              protocol: protocol ?? (draws === undefined ? 'converged' : 'paper'),
              error,
              budget,
              draws: draws ?? mapDefaults.draws,
              sigma,
              noiseAt: asked.noise_at,
              seed: from,
              top,
              before,
            };
            return {
              asked: { model, prompt, image: picture },
              found: await services.inEngine('attribution', order, own, onProgress),
            };
          });
        }),
      show: ({ found }) => ({ object: 'attribution', model, prompt, ...shown(found) }),
      draw: (result) => attributionFigure(result.asked, result.found),
    })) as never;
  });
};

function shown({ layers, before, warnings, ...now }: Attribution): object {
  return { layers, ...viewOf(now), ...(before === undefined ? {} : { before: viewOf(before) }), warnings };
}

export const tokenOf = ({ id, text, logProb }: NamedToken): z.infer<typeof token> => ({
  id,
  text,
  probability: Math.exp(logProb),
});

function viewOf({ key, modules, lens, visual }: AttributionView): object {
  return {
    key,
    ...(modules === undefined ? {} : { modules }),
    ...(lens === undefined
      ? {}
      : {
          lens: lens.map(({ layer, keyProbability, keyRank, tokens }) => ({
            layer,
            key_probability: keyProbability,
            key_rank: keyRank,
            tokens: tokens.map(tokenOf),
          })),
        }),
    ...(visual === undefined
      ? {}
      : {
          visual: {
            ...{ grid: visual.grid, seen: visual.seen, protocol: visual.protocol, noise_at: visual.noiseAt },
            patches_by: visual.patchesBy,
            layers: visual.layers.map(({ carriesWeight, sees, ...layer }) => ({
              ...layer,
              carries_weight: carriesWeight,
              ...(sees === undefined ? {} : { sees: { window: sees.window, both_directions: sees.bothDirections } }),
            })),
          },
        }),
  };
}
