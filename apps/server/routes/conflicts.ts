/** `POST /v1/conflicts`: what a correction would stand against in its set, asked before it is made. */

import { createRoute, z } from '@hono/zod-openapi';
import { claimOf, conflictsOf, pictureKey, storedClaim } from '../../../src/ledger/conflicts.ts';
import { answers, body, image, list, promptText, setName, targetText } from '../http/schemas.ts';
import { type AddRoutes, clientOf } from './app-types.ts';

const route = createRoute({
  method: 'post',
  path: '/v1/conflicts',
  summary: 'Edits of a set that are on and about the same question on the same picture as a correction that is to be made',
  request: {
    body: body(
      z
        .strictObject({
          model: z.string().min(1).max(200),
          set: setName.default('default'),
          image,
          prompt: promptText,
          target: targetText,
        })
        .openapi('ConflictRequest'),
    ),
  },
  responses: answers(
    200,
    'edits; none where the set does not exist yet',
    list(
      z
        .object({
          kind: z.enum(['contradicts', 'repeats']).openapi({ description: 'another target, or the same one' }),
          edit: z.string(),
          question: z.string(),
          target: z.string(),
        })
        .openapi('Conflict'),
    ),
  ),
});

export const addConflicts: AddRoutes = (app, services) => {
  app.openapi(route, async (c) => {
    const { model, set: name, image: url, prompt, target } = c.req.valid('json');
    const { store } = services;
    const set = store.findSet(model, name);
    const active = set === undefined ? [] : store.active(set);
    const found = await services.inTurn('short', { signal: clientOf(c) }, (own) =>
      services.pictures.with([{ url, param: 'image' }], own, async ([picture]) => {
        const claims = await Promise.all(active.map((edit) => storedClaim(store, edit)));
        const claim = claimOf({ id: 'new', prompt, target }, pictureKey(picture!));
        return conflictsOf([...claims, claim], claim);
      }),
    );
    const data = found.map(({ kind, edits, question, targets }) => ({ kind, edit: edits[0], question, target: targets[0] }));
    return c.json({ object: 'list' as const, data }, 200);
  });
};
