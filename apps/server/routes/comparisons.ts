/** `POST /v1/comparisons`: puts the same queries to a model under two sets of edits. */

import { createRoute, z } from '@hono/zod-openapi';
import type { ComparedAnswer } from '../engine/tasks.ts';
import { ApiError } from '../errors.ts';
import { comparisonFigure, passed, wanted } from '../figures.ts';
import {
  background,
  body,
  drawings,
  format,
  image,
  modelRef,
  promptText,
  targetText,
  token,
  workAnswers,
} from '../http/schemas.ts';
import { modelUnder } from '../model-ref.ts';
import type { AddRoutes } from './app-types.ts';
import { tokenOf } from './attributions.ts';
import { formatOf, respond } from './respond.ts';

const request = z
  .strictObject({
    before: modelRef,
    after: modelRef,
    queries: z
      .array(
        z.strictObject({
          kind: z.string().min(1).max(64).openapi({
            description: 'reliability, textGenerality, modalGenerality, textLocality, modalLocality, or a name of your own',
          }),
          prompt: promptText,
          image: image.nullish(),
          target: targetText.nullish(),
        }),
      )
      .min(1)
      .max(256),
    max_tokens: z.int().min(1).max(4096).default(32),
    top_logprobs: z.int().min(0).max(20).default(0),
    format: format.optional(),
    background: background.optional(),
  })
  .openapi('ComparisonRequest');

const answer = z.object({
  text: z.string(),
  tokens: z.array(token.extend({ top: z.array(token) })),
  target_probability: z.number().nullable(),
});
const comparison = z
  .object({
    object: z.literal('comparison'),
    before: z.string(),
    after: z.string(),
    queries: z.array(
      z.object({
        kind: z.string(),
        prompt: z.string(),
        target: z.string().nullable(),
        before: answer,
        after: answer,
        same: z.boolean(),
        token_agreement: z.number().nullable(),
        token_accuracy: z.number().nullable(),
        wanted: z.string().nullable(),
        passed: z.boolean().nullable(),
      }),
    ),
  })
  .openapi('Comparison');

const route = createRoute({
  method: 'post',
  path: '/v1/comparisons',
  summary: 'The same queries to a model before and after edits',
  request: { body: body(request) },
  responses: workAnswers(200, 'answers side by side; a drawing with `format` or the Accept header', comparison, ...drawings),
});

export const addComparisons: AddRoutes = (app, services) => {
  app.openapi(route, async (c) => {
    const asked = c.req.valid('json');
    const both = () => ({
      before: modelUnder(asked.before, services.models, services.store, 'before'),
      after: modelUnder(asked.after, services.models, services.store, 'after'),
    });
    both();
    const { limits } = services;
    if (asked.queries.length > limits.queries)
      throw new ApiError(400, 'invalid_value', `at most ${limits.queries} queries are allowed`, { param: 'queries' });
    const drawn = formatOf(c, asked.format);
    if (drawn !== 'json' && asked.queries.every(({ image: url }) => url == null))
      throw new ApiError(
        400,
        'invalid_value',
        'a drawing of a comparison needs a query with a picture; ask for the format json',
        {
          param: 'format',
        },
      );
    return (await respond(c, services, {
      kind: 'comparison',
      background: asked.background,
      format: drawn,
      work: ({ signal, onProgress, onStart }) =>
        services.inTurn('long', { signal, onStart }, (own) => {
          const sources = asked.queries.flatMap(({ image: url }, i) =>
            url == null ? [] : [{ url, param: `queries.${i}.image` }],
          );
          return services.pictures.with(sources, own, async (images) => {
            const left = [...images];
            const queries = asked.queries.map(({ kind, prompt, image: url, target }) => ({
              kind,
              prompt,
              image: url == null ? undefined : left.shift(),
              target: target ?? undefined,
            }));
            const order = {
              // The edits may have changed while the request waited.
              ...both(),
              queries,
              maxTokens: Math.min(asked.max_tokens, limits.maxTokens),
              top: asked.top_logprobs,
            };
            return { queries, results: await services.inEngine('comparison', order, own, onProgress) };
          });
        }),
      show: ({ queries, results }) => ({
        object: 'comparison',
        before: asked.before,
        after: asked.after,
        queries: results.map((result, i) => {
          const { kind, prompt, target = null } = queries[i]!;
          return {
            kind,
            prompt,
            target,
            before: shown(result.before),
            after: shown(result.after),
            same: result.before.text === result.after.text,
            token_agreement: result.tokenAgreement,
            token_accuracy: result.tokenAccuracy,
            wanted: wanted(kind, target, result.before.text),
            passed: passed(kind, target, result),
          };
        }),
      }),
      draw: ({ queries, results }) =>
        comparisonFigure({ queries: queries.map((q) => ({ ...q, target: q.target ?? null })) }, results),
    })) as never;
  });
};

const shown = ({ text, tokens, targetProbability }: ComparedAnswer): z.infer<typeof answer> => ({
  text,
  tokens: tokens.map((one) => ({ ...tokenOf(one), top: one.top.map(tokenOf) })),
  target_probability: targetProbability,
});
