/** `/v1/datasets` shows records, `/v1/pictures` keeps pictures, `/v1/suggestions` proposes queries around an edit. */

import { readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { createRoute, z } from '@hono/zod-openapi';
import { otherWording } from '../../../lab/world/wording.ts';
import type { EditRecord, RecordQuery } from '../../../src/input/records.ts';
import { Random } from '../../../src/random.ts';
import { type Dataset, queriesOf } from '../datasets.ts';
import { ApiError } from '../errors.ts';
import { answers, body, file, image, list, modelRef, order, page, promptText, targetText } from '../http/schemas.ts';
import type { AddRoutes } from './app-types.ts';
import { clientOf } from './app-types.ts';

const dataset = z
  .object({
    object: z.literal('dataset'),
    id: z.string(),
    title: z.string(),
    kind: z.enum(['vqa', 'caption']),
    state: z.enum(['ready', 'absent']),
    records: z.int().nullable(),
  })
  .openapi('Dataset');
const query = z.object({ image: z.string().nullable(), prompt: z.string(), target: z.string() });
const record = z
  .object({
    object: z.literal('record'),
    index: z.int(),
    kind: z.string().nullable(),
    edit: z.enum(['correction', 'counterfactual']).nullable(),
    expected: z.string().nullable(),
    request: query,
    queries: z.record(z.string(), query),
  })
  .openapi('Record');

const fraction = z.number().min(0).max(1);
const hide = z
  .strictObject({
    regions: z
      .array(z.tuple([fraction, fraction, fraction, fraction]))
      .min(1)
      .max(64)
      .openapi({
        description: 'each from the left, from the top, its width and height, as fractions of the picture',
      }),
    by: z.enum(['grey', 'blur']).default('grey'),
  })
  .openapi('Hide', { description: 'parts of the picture to hide' });

const id = z.string().max(200);
const routes = {
  list: createRoute({
    method: 'get',
    path: '/v1/datasets',
    summary: 'Data sets',
    responses: answers(200, 'data sets', list(dataset)),
  }),
  records: createRoute({
    method: 'get',
    path: '/v1/datasets/{id}/records',
    summary: 'Records of a data set',
    request: {
      params: z.object({ id }),
      query: z.strictObject({
        q: z.string().max(200).optional().openapi({ description: 'words in a prompt or target' }),
        kind: z.string().max(64).optional(),
        edit: z.enum(['correction', 'counterfactual']).optional(),
        sort: z.enum(['index', 'kind', 'edit', 'prompt', 'target']).default('index'),
        order: order.default('asc'),
        ...page,
      }),
    },
    responses: answers(200, 'records', list(record)),
  }),
  record: createRoute({
    method: 'get',
    path: '/v1/datasets/{id}/records/{index}',
    summary: 'One record',
    request: { params: z.object({ id, index: z.coerce.number().int().min(0).max(1e9) }) },
    responses: answers(200, 'the record', record),
  }),
  picture: createRoute({
    method: 'get',
    path: '/v1/datasets/{id}/pictures/{number}',
    summary: 'A picture of a data set',
    request: { params: z.object({ id, number: z.string().max(9) }) },
    responses: file('the picture', 'image/*', 'application/octet-stream'),
  }),
  kept: createRoute({
    method: 'get',
    path: '/v1/pictures/{id}',
    summary: 'A picture that was kept',
    request: { params: z.object({ id: z.string().max(100) }) },
    responses: file('the picture', 'image/png'),
  }),
  keep: createRoute({
    method: 'post',
    path: '/v1/pictures',
    summary: 'Keep a picture, whole or with parts of it hidden, so that requests and links can name it',
    request: { body: body(z.strictObject({ image, hide: hide.optional() })) },
    responses: answers(
      201,
      'where it is',
      z.object({ id: z.string(), url: z.string(), width: z.int(), height: z.int() }).openapi('Picture'),
    ),
  }),
  suggest: createRoute({
    method: 'post',
    path: '/v1/suggestions',
    summary: 'The five kinds of query around an edit, as far as the data sets have any',
    request: {
      body: body(
        z.strictObject({ model: modelRef.optional(), image: image.nullish(), prompt: promptText, target: targetText.nullish() }),
      ),
    },
    responses: answers(
      200,
      'queries; a picture that is null is to be chosen',
      list(z.object({ kind: z.string(), prompt: z.string(), image: z.string().nullable(), target: z.string().nullable() })),
    ),
  }),
};

const types: Record<string, string> = {
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.webp': 'image/webp',
  '.gif': 'image/gif',
};

export const addDatasets: AddRoutes = (app, services) => {
  const { datasets, uploads } = services;
  app.openapi(routes.list, (c) =>
    c.json({ object: 'list' as const, data: datasets.list().map((one) => ({ object: 'dataset' as const, ...one })) }, 200),
  );
  app.openapi(routes.records, async (c) => {
    const found = await datasets.get(c.req.valid('param').id);
    const { q, kind, edit, sort, order: direction, offset, limit } = c.req.valid('query');
    const words = q?.toLowerCase();
    const fits = (one: EditRecord): boolean =>
      (kind === undefined || one.kind === kind) &&
      (edit === undefined || one.edit === edit) &&
      (words === undefined || `${one.request.prompt}\n${one.request.target}`.toLowerCase().includes(words));
    const key = (one: EditRecord): string | number =>
      sort === 'index' ? one.index : sort === 'prompt' || sort === 'target' ? one.request[sort] : (one[sort] ?? '');
    const sorted = sortedBy(found.records.filter(fits), key, direction);
    const data = sorted.slice(offset, offset + limit).map((one) => describe(found, one));
    return c.json({ object: 'list' as const, data, total: sorted.length, offset, limit }, 200);
  });
  app.openapi(routes.record, async (c) => {
    const { id: name, index } = c.req.valid('param');
    const found = await datasets.get(name);
    const one = found.records[index];
    if (one === undefined)
      throw new ApiError(404, 'record_not_found', `${name} has no record ${index}; it has ${found.records.length}`, {
        param: 'index',
      });
    return c.json(describe(found, one), 200);
  });
  app.openapi(routes.picture, async (c) => {
    const { id: name, number } = c.req.valid('param');
    const path = (await datasets.get(name)).pictures[Number(number)];
    if (path === undefined) throw new ApiError(404, 'picture_not_found', 'the data set has no such picture', { param: 'number' });
    return c.body(new Uint8Array(readFileSync(path)), 200, {
      'content-type': types[extname(path).toLowerCase()] ?? 'application/octet-stream',
      'cache-control': 'private, max-age=3600',
    });
  });

  app.openapi(routes.keep, async (c) => {
    const { image: url, hide: parts } = c.req.valid('json');
    const source = { url, param: 'image' };
    const png = await services.inTurn('short', { signal: clientOf(c) }, (own) => services.pictures.asPng(source, own, parts));
    uploads.keep(png);
    const { id, width, height } = png;
    return c.json({ id, url: `/v1/pictures/${id}`, width, height }, 201);
  });
  app.openapi(routes.kept, (c) => {
    const bytes = uploads.get(c.req.valid('param').id);
    if (bytes === undefined)
      throw new ApiError(404, 'picture_not_found', 'there is no such picture, or it had to make room', { param: 'id' });
    return c.body(new Uint8Array(bytes), 200, {
      'content-type': 'image/png',
      'cache-control': 'private, max-age=31536000, immutable',
    });
  });

  app.openapi(routes.suggest, async (c) => {
    const asked = c.req.valid('json');
    const first = datasets.list().find(({ kind }) => kind === 'vqa') ?? datasets.list()[0];
    const found = first === undefined ? undefined : await datasets.get(first.id);
    const data = suggestions(found, { ...asked, image: asked.image ?? null, target: asked.target ?? null });
    return c.json({ object: 'list' as const, data }, 200);
  });
};

/** Sorts without changing the order of equal values. */
export function sortedBy<T>(values: readonly T[], key: (value: T) => string | number, direction: 'asc' | 'desc'): T[] {
  const sign = direction === 'asc' ? 1 : -1;
  return [...values].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    return x < y ? -sign : x > y ? sign : 0;
  });
}

const pathOf = ({ id: name, numberOf }: Dataset, path: string | null): string | null =>
  path === null ? null : `/v1/datasets/${name}/pictures/${numberOf.get(path)}`;

function describe(of: Dataset, one: EditRecord): z.infer<typeof record> {
  const shown = ({ image: path, prompt, target }: RecordQuery): z.infer<typeof query> => ({
    image: pathOf(of, path),
    prompt,
    target,
  });
  return {
    object: 'record',
    index: one.index,
    kind: one.kind ?? null,
    edit: one.edit ?? null,
    expected: one.pred ?? null,
    request: shown(one.request),
    queries: Object.fromEntries(queriesOf(one).map(([kind, each]) => [kind, shown(each)])),
  };
}

interface Suggested {
  kind: string;
  prompt: string;
  image: string | null;
  target: string | null;
}

/** The same request gets the same suggestions. */
function suggestions(of: Dataset | undefined, { image: picture, prompt, target }: Omit<Suggested, 'kind'>): Suggested[] {
  const records = of?.records ?? [];
  const own = records.find(
    ({ request }) => request.prompt === prompt && of !== undefined && pathOf(of, request.image) === picture,
  );
  const other = own ?? records[new Random(`suggestions/${prompt}/${target}`).int(Math.max(1, records.length))];
  const { textGenerality, modalGenerality } = own?.queries ?? {};
  const { textLocality, modalLocality } = other?.queries ?? {};
  const local = (kind: string, found: RecordQuery | undefined): Suggested[] =>
    found === undefined || of === undefined
      ? []
      : [{ kind, prompt: found.prompt, image: pathOf(of, found.image), target: found.target }];
  return [
    { kind: 'reliability', prompt, image: picture, target },
    { kind: 'textGenerality', prompt: textGenerality?.prompt ?? otherWording(prompt) ?? prompt, image: picture, target },
    {
      kind: 'modalGenerality',
      prompt,
      image: modalGenerality === undefined || of === undefined ? null : pathOf(of, modalGenerality.image),
      target,
    },
    ...local('textLocality', textLocality),
    ...local('modalLocality', modalLocality),
  ];
}
