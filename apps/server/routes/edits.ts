/** `/v1/edits` and `/v1/sets`: makes, keeps, switches, combines and deletes corrections. */

import { rm, writeFile } from 'node:fs/promises';
import { createRoute, z } from '@hono/zod-openapi';
import { lastCard } from '../../../src/ledger/cards.ts';
import { revisionOf } from '../../../src/ledger/history.ts';
import { type EditSet, editCheck, type StoredEdit, setId } from '../../../src/ledger/ledger.ts';
import type { EditMade } from '../engine/tasks.ts';
import { ApiError } from '../errors.ts';
import {
  answers,
  background,
  body,
  file,
  image,
  jobSchema,
  list,
  page,
  promptText,
  setName,
  targetText,
  workAnswers,
} from '../http/schemas.ts';
import { fromDataUrl, type Source } from '../pictures/pictures.ts';
import type { Services } from '../services.ts';
import type { AddRoutes } from './app-types.ts';
import { type Doing, respond } from './respond.ts';

const edit = z
  .object({
    object: z.literal('edit'),
    id: z.string(),
    model: z.string(),
    set: z.string(),
    editor: z.string(),
    weights: z.string().nullable(),
    prompt: z.string(),
    target: z.string(),
    enabled: z.boolean(),
    created: z.int(),
    note: z.string().nullable(),
    bytes: z.int(),
    picture: z.string().nullable(),
    position: z.int().nullable().openapi({ description: 'place in its set; null while its addition is undone' }),
    warnings: z.array(z.string()).readonly(),
    measured: z
      .int()
      .nullable()
      .openapi({ description: 'revision of the set that its card was last asked under; null: alone, when it was made' }),
    // Whether the edit took, and its scope card; absent where it was not asked, as for an edit that came as a file until its set is measured.
    ...editCheck.partial().shape,
  })
  .openapi('Edit');

const set = z
  .object({
    object: z.literal('edit_set'),
    id: z.string(),
    model: z.string(),
    name: z.string(),
    editor: z.string().nullable(),
    revision: z.int(),
    edits: z.array(z.object({ id: z.string(), enabled: z.boolean() })),
    measuring: z.string().nullable().openapi({ description: 'the job that asks its scope cards again, while it does' }),
    history: z.array(
      z.object({
        revision: z.int(),
        at: z.int(),
        action: z.enum(['add', 'enable', 'disable', 'delete', 'revert']),
        edit: z.string().nullable(),
        to: z.int().nullable(),
      }),
    ),
  })
  .openapi('EditSet');

const note = z.string().max(500);
const modelName = z.string().min(1).max(200);
const common = { model: modelName, set: setName.default('default'), note: note.nullish() };
const making = z
  .strictObject({
    ...common,
    editor: z.string().min(1).max(40),
    weights: z.string().min(1).max(200).optional(),
    image,
    prompt: promptText,
    target: targetText,
    probes: z.enum(['card', 'none']).default('card').openapi({ description: 'questions asked around the edit' }),
    background: background.optional(),
  })
  .openapi('EditToMake');
const upload = z
  .strictObject({
    ...common,
    file: z.string().min(1).openapi({ description: 'a file that `visedit edit` wrote, as a data URL' }),
    image: image.optional(),
    background: background.optional(),
  })
  .openapi('EditFromFile');
const creation = z
  .object({ file: z.unknown().optional(), background: z.unknown().optional() })
  .loose()
  .openapi('EditRequest', {
    oneOf: [{ $ref: '#/components/schemas/EditToMake' }, { $ref: '#/components/schemas/EditFromFile' }],
  });

const editId = z.object({ id: z.string().max(100) });
const params = { params: editId };
const setParams = { params: z.object({ id: z.string().max(300) }) };
const deletedOf = (object: 'edit' | 'edit_set') =>
  z.object({ id: z.string(), object: z.literal(object), deleted: z.literal(true) });

const routes = {
  add: createRoute({
    method: 'post',
    path: '/v1/edits',
    summary: 'Correct an answer, or take over an edit from a file',
    request: { body: body(creation) },
    responses: workAnswers(201, 'the edit', edit),
  }),
  list: createRoute({
    method: 'get',
    path: '/v1/edits',
    summary: 'Edits',
    request: {
      query: z.strictObject({
        model: z.string().max(200).optional(),
        set: z.string().max(63).optional(),
        enabled: z.enum(['true', 'false']).optional(),
        ...page,
      }),
    },
    responses: answers(200, 'edits, in the order they were made', list(edit)),
  }),
  get: createRoute({
    method: 'get',
    path: '/v1/edits/{id}',
    summary: 'One edit',
    request: params,
    responses: answers(200, 'the edit', edit),
  }),
  update: createRoute({
    method: 'patch',
    path: '/v1/edits/{id}',
    summary: 'Switch an edit on or off, or write a note to it',
    request: { ...params, body: body(z.strictObject({ enabled: z.boolean().optional(), note: note.nullish() })) },
    responses: answers(200, 'the edit', edit),
  }),
  remove: createRoute({
    method: 'delete',
    path: '/v1/edits/{id}',
    summary: 'Delete an edit for good',
    request: params,
    responses: answers(200, 'what was deleted', deletedOf('edit')),
  }),
  picture: createRoute({
    method: 'get',
    path: '/v1/edits/{id}/picture',
    summary: 'The picture of an edit',
    request: params,
    responses: file('the picture', 'image/png'),
  }),
  file: createRoute({
    method: 'get',
    path: '/v1/edits/{id}/file',
    summary: 'The file of an edit, as `visedit edit` writes it',
    request: params,
    responses: file('the file', 'application/octet-stream'),
  }),
  sets: createRoute({
    method: 'get',
    path: '/v1/sets',
    summary: 'Sets of edits',
    request: { query: z.strictObject({ model: z.string().max(200).optional() }) },
    responses: answers(200, 'sets', list(set)),
  }),
  set: createRoute({
    method: 'get',
    path: '/v1/sets/{id}',
    summary: 'One set',
    request: setParams,
    responses: answers(200, 'the set', set),
  }),
  revert: createRoute({
    method: 'post',
    path: '/v1/sets/{id}/revert',
    summary: 'Undo the last change of a set that is not undone, or restore a revision',
    request: { ...setParams, body: body(z.strictObject({ to: z.int().min(0).max(1e9).optional() })) },
    responses: answers(200, 'the set', set),
  }),
  measure: createRoute({
    method: 'post',
    path: '/v1/sets/{id}/measure',
    summary: 'Ask the scope cards of all edits of a set that are on, in the background',
    request: setParams,
    responses: answers(202, 'the job', jobSchema),
  }),
  removeSet: createRoute({
    method: 'delete',
    path: '/v1/sets/{id}',
    summary: 'Delete a set with all its edits',
    request: setParams,
    responses: answers(200, 'what was deleted', deletedOf('edit_set')),
  }),
};

export const addEdits: AddRoutes = (app, services) => {
  const { store, measuring } = services;
  app.openAPIRegistry.register('EditToMake', making);
  app.openAPIRegistry.register('EditFromFile', upload);
  const shown = (one: StoredEdit): z.infer<typeof edit> => describe(services, one);

  app.openapi(routes.add, async (c) => {
    const given = c.req.valid('json');
    const make = given.file === undefined ? makeEdit(services, parse(making, given)) : adoptEdit(services, parse(upload, given));
    return (await respond(c, services, {
      kind: 'edit',
      background: given.background === true,
      format: 'json',
      status: 201,
      work: make,
      show: shown,
    })) as never;
  });
  app.openapi(routes.list, (c) => {
    const { model, set: name, enabled, offset, limit } = c.req.valid('query');
    const found = store.edits.filter(
      (one) =>
        (model === undefined || one.model === model) &&
        (name === undefined || one.set === name) &&
        (enabled === undefined || String(store.isEnabled(one)) === enabled),
    );
    const data = found.slice(offset, offset + limit).map(shown);
    return c.json({ object: 'list' as const, data, total: found.length, offset, limit }, 200);
  });
  app.openapi(routes.get, (c) => c.json(shown(store.edit(c.req.valid('param').id)), 200));
  app.openapi(routes.update, (c) => {
    const { enabled, note: text } = c.req.valid('json');
    const { id } = c.req.valid('param');
    const before = store.isEnabled(store.edit(id));
    const updated = store.update(id, { enabled, note: text });
    if (store.isEnabled(updated) !== before) measuring.changed({ model: updated.model, name: updated.set });
    return c.json(shown(updated), 200);
  });
  app.openapi(routes.remove, (c) => {
    const { id } = c.req.valid('param');
    const { model, set: name } = store.edit(id);
    store.delete(id);
    measuring.changed({ model, name });
    return c.json({ id, object: 'edit' as const, deleted: true as const }, 200);
  });
  app.openapi(routes.picture, (c) => {
    const picture = store.picture(c.req.valid('param').id);
    if (picture === undefined) throw new ApiError(404, 'picture_not_found', 'this edit came without a picture', { param: 'id' });
    return c.body(new Uint8Array(picture), 200, { 'content-type': 'image/png', 'cache-control': 'private, max-age=3600' });
  });
  app.openapi(routes.file, (c) => {
    const { id } = store.edit(c.req.valid('param').id);
    return c.body(new Uint8Array(store.file(id)), 200, {
      'content-type': 'application/octet-stream',
      'content-disposition': `attachment; filename="${id}.safetensors"`,
    });
  });

  app.openapi(routes.sets, (c) => {
    const { model } = c.req.valid('query');
    const data = store.sets.filter((one) => model === undefined || one.model === model).map((one) => describeSet(services, one));
    return c.json({ object: 'list' as const, data }, 200);
  });
  app.openapi(routes.set, (c) => c.json(describeSet(services, store.set(c.req.valid('param').id)), 200));
  app.openapi(routes.revert, (c) => {
    const reverted = store.revert(c.req.valid('param').id, c.req.valid('json').to);
    measuring.changed(reverted);
    return c.json(describeSet(services, reverted), 200);
  });
  app.openapi(routes.measure, (c) => {
    const id = setId(store.set(c.req.valid('param').id));
    return c.json({ ...measuring.start(id) } as z.infer<typeof jobSchema>, 202);
  });
  app.openapi(routes.removeSet, (c) => {
    const { id } = c.req.valid('param');
    measuring.giveUp(id);
    store.deleteSet(id);
    return c.json({ id, object: 'edit_set' as const, deleted: true as const }, 200);
  });
};

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (!result.success) throw result.error;
  return result.data;
}

type Make = (doing: Doing) => Promise<StoredEdit>;

function checkModel({ models }: Services, model: string): void {
  if (!models.includes(model))
    throw new ApiError(404, 'model_not_found', `there is no unedited model ${JSON.stringify(model)}`, { param: 'model' });
}

const makeEdit =
  (
    services: Services,
    { model, set: name, editor, weights, image: url, prompt, target, probes, note: text }: z.infer<typeof making>,
  ): Make =>
  async ({ signal, onStart }) => {
    const { store, facts } = services;
    checkModel(services, model);
    const known = facts.editors.find(({ id }) => id === editor);
    if (known === undefined)
      throw new ApiError(
        400,
        'editor_not_found',
        `there is no editor ${JSON.stringify(editor)}; there are: ${facts.editors.map(({ id }) => id).join(', ')}`,
        { param: 'editor' },
      );
    const used = weights ?? known.weights.find((one) => one.model === model)?.name;
    store.beside(model, name, editor);
    const about = { id: store.newId(), set: name, model, weights: used ?? null, note: text ?? null };
    const out = store.path(about.id);
    const source = { url, param: 'image' };
    return services.inTurn('long', { signal, onStart }, (own) =>
      kept(services, about, source, own, () =>
        services.pictures.with([source], own, ([picture]) => {
          const beside = store.beside(model, name, editor);
          const order = { model, editor, weights: used, image: picture!, prompt, target, out, beside, card: probes === 'card' };
          return services.inEngine('edit', order, own);
        }),
      ),
    );
  };

const adoptEdit =
  (services: Services, { model, set: name, file, image: url, note: text }: z.infer<typeof upload>): Make =>
  ({ signal, onStart }) =>
    services.inTurn('long', { signal, onStart }, (own) => {
      const { store } = services;
      checkModel(services, model);
      store.beside(model, name, undefined);
      const about = { id: store.newId(), set: name, model, weights: null, note: text ?? null };
      const path = store.path(about.id);
      const source = url === undefined ? undefined : { url, param: 'image' };
      return kept(services, about, source, own, async () => {
        await writeFile(path, fromDataUrl(file, 'file'), { flush: true });
        return services.inEngine('adopt', { model, path, beside: store.beside(model, name, undefined) }, own);
      });
    });

/** Makes an edit and enters it in the ledger. Removes its file when that fails, or when the work is given up. */
async function kept(
  { store, pictures, measuring }: Services,
  about: Pick<StoredEdit, 'id' | 'set' | 'model' | 'weights' | 'note'>,
  picture: Source | undefined,
  signal: AbortSignal,
  make: () => Promise<EditMade>,
): Promise<StoredEdit> {
  try {
    const made = await make();
    const png = picture && (await pictures.asPng(picture, signal)).data;
    // Nothing waits between here and the end of the job, so a job that is cancelled later has ended as done.
    signal.throwIfAborted();
    const added = store.add({ ...about, ...made }, png);
    measuring.changed({ model: added.model, name: added.set }, added.id);
    return added;
  } catch (error) {
    await rm(store.path(about.id), { force: true });
    throw error;
  }
}

function describe({ store }: Services, one: StoredEdit): z.infer<typeof edit> {
  const entries = store.findSet(one.model, one.set)?.history.entries ?? [];
  const position = entries.findIndex(({ id }) => id === one.id);
  const { id, model, set: name, editor, weights, prompt, target, created, note: text, bytes, picture, measured, warnings } = one;
  return {
    object: 'edit',
    id,
    model,
    set: name,
    editor,
    weights,
    prompt,
    target,
    enabled: entries[position]?.enabled ?? false,
    created,
    note: text,
    bytes,
    picture: picture ? `/v1/edits/${id}/picture` : null,
    position: position < 0 ? null : position,
    warnings,
    measured: measured?.revision ?? null,
    ...lastCard(one),
  };
}

/** Revisions that a client is told of; every earlier one can be restored by its number, too. */
const shownRevisions = 200;

function describeSet({ store, measuring }: Services, one: EditSet): z.infer<typeof set> {
  const { model, name, history } = one;
  return {
    object: 'edit_set',
    id: setId(one),
    model,
    name,
    editor: store.editorOf(one) ?? null,
    revision: revisionOf(history),
    edits: history.entries.map((entry) => ({ ...entry })),
    measuring: measuring.underWay(setId(one)),
    history: history.revisions
      .slice(-shownRevisions)
      .map(({ revision, at, action, edit: of, to }) => ({ revision, at, action, edit: of, to })),
  };
}
