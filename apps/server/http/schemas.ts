/** Shapes that several routes share. */

import { z } from '@hono/zod-openapi';
import type { ZodError } from 'zod';
import { ApiError } from '../errors.ts';
import { defaultLimits } from '../options.ts';

/** These bounds stand in the description. A server may be started with narrower ones, which are checked where they are used. */
export const modelRef = z
  .string()
  .min(1)
  .max(300)
  .openapi({ description: 'NAME, NAME@SET or NAME@edit_ID', example: 'mini-llava@default' });
export const setName = z
  .string()
  .regex(/^(?!edit_)[a-z0-9][a-z0-9._-]{0,62}$/, {
    error: 'must be of a-z, 0-9, ".", "_" and "-", begin with a letter or digit, not with edit_, and have at most 63 characters',
  })
  .openapi({ example: 'default' });
export const image = z.string().min(1).openapi({ description: 'a data URL, or the path of a picture of this server' });
export const promptText = z.string().min(1).max(defaultLimits.promptCharacters);
export const targetText = z.string().min(1).max(4096);
export const seed = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
export const format = z.enum(['json', 'figure', 'svg', 'png']);
export const background = z.boolean().openapi({ description: 'answer at once with a job that can be watched and cancelled' });
export const page = {
  offset: z.coerce.number().int().min(0).max(1e9).default(0),
  limit: z.coerce.number().int().min(1).max(200).default(20),
};
export const order = z.enum(['asc', 'desc']);

export const token = z.object({ id: z.int(), text: z.string(), probability: z.number() });
export const list = <T extends z.ZodType>(item: T) =>
  z.object({
    object: z.literal('list'),
    data: z.array(item),
    total: z.int().optional(),
    offset: z.int().optional(),
    limit: z.int().optional(),
  });

export const errorSchema = z
  .object({
    error: z.object({ message: z.string(), type: z.string(), param: z.string().nullable(), code: z.string() }),
  })
  .openapi('Error');

/** A JSON body that must be there. */
export const body = <T extends z.ZodType>(schema: T) =>
  ({ content: { 'application/json': { schema } }, required: true }) as const;

export const drawings = ['image/svg+xml', 'image/png'] as const;

const bytesOf = (types: readonly string[]) =>
  Object.fromEntries(types.map((type) => [type, { schema: z.string().openapi({ format: 'binary' }) }]));

/** A successful answer, and the errors of every route. @param types further content types of the answer */
export const answers = <S extends number, T extends z.ZodType>(
  status: S,
  description: string,
  schema: T,
  ...types: readonly string[]
) =>
  ({ [status]: { description, content: { 'application/json': { schema }, ...bytesOf(types) } }, ...errors }) as unknown as Record<
    S,
    { description: string; content: { 'application/json': { schema: T } } }
  >;

/** As `answers`, of work that may be asked for as a job. */
export const workAnswers: typeof answers = (status, description, schema, ...types) => ({
  ...answers(status, description, schema, ...types),
  202: { description: 'with `background`: the job', content: { 'application/json': { schema: jobSchema } } },
});

/** Bytes of some type. */
export const file = (description: string, ...types: string[]) => ({
  200: { description, content: bytesOf(types) },
  ...errors,
});

export const jobSchema = z
  .object({
    object: z.literal('job'),
    id: z.string(),
    kind: z.string(),
    state: z.enum(['queued', 'running', 'done', 'failed', 'cancelled']),
    created: z.int(),
    progress: z.object({ done: z.int(), total: z.int(), note: z.string() }),
    result: z.unknown().optional(),
    error: z.unknown().optional(),
  })
  .openapi('Job');

const errors = {
  default: { description: 'what went wrong', content: { 'application/json': { schema: errorSchema } } },
};

/** The first thing that does not fit, as an error of the API. */
export function refusal(error: Pick<ZodError, 'issues'>): ApiError {
  const issue = error.issues[0];
  if (issue === undefined) return new ApiError(400, 'invalid_value', 'the request does not fit');
  const path = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    const param = [...path, key].join('.');
    return new ApiError(400, 'unknown_field', `there is no field ${JSON.stringify(param.slice(0, 200))}`, {
      param: param.slice(0, 200),
    });
  }
  const param = path.join('.');
  const what = param === '' ? 'the request' : JSON.stringify(param);
  const message = issue.message.replace(/^Invalid input: /, '').replace(/^Too (big|small): /, '');
  const missing = issue.code === 'invalid_type' && /received undefined/.test(issue.message);
  return new ApiError(
    400,
    missing ? 'missing_field' : 'invalid_value',
    missing ? `${what} is missing` : `${what} is not valid: ${message}`,
    { param: param === '' ? undefined : param },
  );
}
