/** `POST /v1/chat/completions`, as OpenAI's clients ask it. */

import { randomInt, randomUUID } from 'node:crypto';
import { createRoute, z } from '@hono/zod-openapi';
import { type Message, partsOf } from '../../../src/input/chat/chat.ts';
import type { ChatOrder, NamedToken, Said, SaidToken } from '../engine/tasks.ts';
import { ApiError, isStop, stopped } from '../errors.ts';
import { type EventSink, eventStream } from '../http/events.ts';
import { answers, body, modelRef, seed } from '../http/schemas.ts';
import { modelUnder } from '../model-ref.ts';
import type { Source } from '../pictures/pictures.ts';
import type { Services } from '../services.ts';
import { type AddRoutes, type Ctx, clientOf } from './app-types.ts';

const textPart = z.strictObject({ type: z.literal('text'), text: z.string().max(100_000) });
const imagePart = z.strictObject({
  type: z.literal('image_url'),
  image_url: z.strictObject({ url: z.string().min(1), detail: z.enum(['auto', 'low', 'high']).nullish() }),
});
const absent = (what: string) => z.null({ error: `must be null: ${what} are not supported` }).optional();
const absentOrNone = (what: string) =>
  z
    .array(z.unknown())
    .max(0, { error: `must be empty: ${what} are not supported` })
    .nullish();

/** Clients send an answer back as they got it, with fields that are null or empty. Such fields are accepted and ignored. */
const message = z
  .strictObject({
    role: z.enum(['system', 'developer', 'user', 'assistant']),
    content: z
      .union(
        [
          z.string().max(100_000),
          z
            .array(z.discriminatedUnion('type', [textPart, imagePart]))
            .min(1)
            .max(64),
        ],
        {
          error: 'must be text, or a list of parts of type text or image_url',
        },
      )
      .nullish(),
    name: z.string().max(64).nullish(),
    refusal: absent('refusals'),
    annotations: absentOrNone('annotations'),
    audio: absent('sounds'),
    function_call: absent('functions'),
    tool_calls: absentOrNone('tools'),
    parsed: absent('parsed answers'),
    reasoning: absent('reasoning texts'),
    reasoning_content: absent('reasoning texts'),
  })
  .refine(({ role, content }) => role === 'assistant' || content != null, {
    path: ['content'],
    error: 'must be text, or a list of parts of type text or image_url',
  });

/** Fields of OpenAI's API for what is not supported here. They are accepted with the values that ask for nothing. */
const asksNothing = {
  n: z.literal(1, { error: 'must be 1: ask again for another answer' }).nullish(),
  frequency_penalty: z.literal(0, { error: 'must be 0: penalties are not supported' }).nullish(),
  presence_penalty: z.literal(0, { error: 'must be 0: penalties are not supported' }).nullish(),
  logit_bias: z.strictObject({}, { error: 'must be empty: biases are not supported' }).nullish(),
  response_format: z.strictObject({ type: z.literal('text', { error: 'must be text' }) }).nullish(),
  store: z.literal(false, { error: 'must be false: answers are not stored' }).nullish(),
  modalities: z.tuple([z.literal('text')], { error: 'must be ["text"]' }).nullish(),
  service_tier: z.enum(['auto', 'default']).nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  tools: z.array(z.unknown()).max(0, { error: 'must be empty: tools are not supported' }).nullish(),
  tool_choice: z.enum(['none', 'auto']).nullish(),
  audio: absent('sounds'),
  function_call: z.literal('none', { error: 'must be none: functions are not supported' }).nullish(),
  functions: absentOrNone('functions'),
  prediction: absent('predictions'),
  moderation: absent('moderations'),
  web_search_options: absent('searches'),
  reasoning_effort: absent('efforts'),
  verbosity: z.literal('medium', { error: 'must be medium: other lengths are not supported' }).nullish(),
  metadata: z.record(z.string().max(64), z.string().max(512)).nullish(),
  user: z.string().max(256).nullish(),
  safety_identifier: z.string().max(256).nullish(),
  prompt_cache_key: z.string().max(256).nullish(),
  prompt_cache_retention: z.string().max(64).nullish(),
};

const request = z
  .strictObject({
    model: modelRef,
    messages: z.array(message).min(1).max(256),
    max_tokens: z.int().min(1).max(1e6).nullish(),
    max_completion_tokens: z.int().min(1).max(1e6).nullish(),
    temperature: z.number().min(0).max(2).nullish().openapi({ description: '0, the default, takes the most probable token' }),
    top_p: z.number().min(0).max(1).nullish(),
    seed: seed.nullish(),
    stop: z
      .union([z.string().min(1).max(256), z.array(z.string().min(1).max(256)).max(4)], {
        error: 'must be text, or at most 4 texts',
      })
      .nullish(),
    stream: z.boolean().nullish(),
    stream_options: z
      .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.boolean().nullish() })
      .nullish(),
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(20).nullish(),
    ...asksNothing,
  })
  .openapi('ChatCompletionRequest');
type ChatRequest = z.infer<typeof request>;

const logprob = z.object({ token: z.string(), token_id: z.int(), logprob: z.number(), bytes: z.array(z.int()) });
const usage = z.object({ prompt_tokens: z.int(), completion_tokens: z.int(), total_tokens: z.int() });
const completion = z
  .object({
    id: z.string(),
    object: z.literal('chat.completion'),
    created: z.int(),
    model: z.string(),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({ role: z.literal('assistant'), content: z.string(), refusal: z.null() }),
        logprobs: z
          .object({ content: z.array(logprob.extend({ top_logprobs: z.array(logprob) })), refusal: z.null() })
          .nullable(),
        finish_reason: z.enum(['stop', 'length']),
      }),
    ),
    usage,
    warnings: z
      .array(z.string())
      .readonly()
      .optional()
      .openapi({ description: 'words of the prompt that the model has no token for' }),
  })
  .openapi('ChatCompletion');

const route = createRoute({
  method: 'post',
  path: '/v1/chat/completions',
  summary: 'Answer a question about a picture, or without one',
  request: { body: body(request) },
  responses: answers(200, 'the answer; with `stream` as server-sent events of chunks', completion, 'text/event-stream'),
});

/** New tokens of an answer when the request has no limit. */
const defaultTokens = 128;

export const addChat: AddRoutes = (app, services) => {
  app.openapi(route, async (c) => {
    const asked = c.req.valid('json');
    const order = orderOf(services, asked);
    if (asked.stream === true) return streamed(services, c, asked, order) as never;
    const said = await answer(services, order, clientOf(c));
    services.metrics.tokens(order.under.model, said.promptTokens, said.tokens.length);
    const content = asked.logprobs === true ? { content: said.tokens.map(logprobOf), refusal: null } : null;
    return c.json(
      {
        ...headOf(asked.model),
        object: 'chat.completion' as const,
        choices: [
          {
            index: 0,
            message: { role: 'assistant' as const, content: said.text, refusal: null },
            logprobs: content,
            finish_reason: said.finish,
          },
        ],
        usage: usageOf(said),
        ...warned(said),
      },
      200,
    );
  });
};

/** An order whose pictures are not read yet: messages hold their numbers. */
type Order = Omit<ChatOrder, 'messages'> & {
  readonly model: string;
  readonly messages: readonly Message<number>[];
  readonly pictures: readonly Source[];
};

const answer = (
  services: Services,
  { pictures, messages, model, ...order }: Order,
  signal: AbortSignal,
  onNews?: (token: SaidToken) => void,
): Promise<Said> =>
  services.inTurn('short', { signal }, (own) =>
    services.pictures.with(pictures, own, (images) => {
      // The edits may have changed while the request waited.
      const under = modelUnder(model, services.models, services.store, 'model');
      const seen = messages.map(({ role, content }) => ({
        role,
        content: partsOf({ content }).map((part) => ('text' in part ? part : { picture: images[part.picture]! })),
      }));
      return services.inEngine('chat', { ...order, under, messages: seen }, own, onNews);
    }),
  );

/** Pictures of one conversation. */
const maxPictures = 16;

/** The messages, with the numbers of their pictures, and the pictures. @throws ApiError 400 */
function read(given: ChatRequest['messages'], characters: number): { messages: Message<number>[]; pictures: Source[] } {
  const pictures: Source[] = [];
  const messages = given.map(({ role, content }, m): Message<number> => {
    const parts = typeof content === 'string' ? [{ type: 'text' as const, text: content }] : (content ?? []);
    return {
      role: role === 'developer' ? 'system' : role,
      content: parts.map((part, p) => {
        if (part.type === 'text') return { text: part.text };
        const param = `messages.${m}.content.${p}.image_url.url`;
        if (pictures.length === maxPictures)
          throw new ApiError(400, 'too_many_images', `at most ${maxPictures} pictures are allowed`, { param });
        return { picture: pictures.push({ url: part.image_url.url, param }) - 1 };
      }),
    };
  });
  const length = messages.flatMap(partsOf).reduce((total, part) => total + ('text' in part ? part.text.length : 0), 0);
  if (length === 0) throw new ApiError(400, 'invalid_prompt', 'the messages hold no text; ask something', { param: 'messages' });
  if (length > characters)
    throw new ApiError(400, 'prompt_too_long', `the messages hold ${length} characters; ${characters} are allowed`, {
      param: 'messages',
    });
  return { messages, pictures };
}

function orderOf(services: Services, asked: ChatRequest): Order {
  const { limits, store, models } = services;
  const under = modelUnder(asked.model, models, store, 'model');
  const { messages, pictures } = read(asked.messages, limits.promptCharacters);
  if (asked.max_tokens != null && asked.max_completion_tokens != null)
    throw new ApiError(400, 'invalid_value', 'give max_tokens or max_completion_tokens, not both', { param: 'max_tokens' });
  const maxTokens = asked.max_completion_tokens ?? asked.max_tokens ?? Math.min(defaultTokens, limits.maxTokens);
  if (maxTokens > limits.maxTokens)
    throw new ApiError(400, 'invalid_value', `at most ${limits.maxTokens} new tokens are allowed`, {
      param: asked.max_tokens == null ? 'max_completion_tokens' : 'max_tokens',
    });
  if (asked.top_logprobs != null && asked.logprobs !== true)
    throw new ApiError(400, 'invalid_value', 'top_logprobs needs logprobs: true', { param: 'top_logprobs' });
  if (asked.stream_options != null && asked.stream !== true)
    throw new ApiError(400, 'invalid_value', 'stream_options needs stream: true', { param: 'stream_options' });
  return {
    under,
    model: asked.model,
    messages,
    pictures,
    maxTokens,
    stop: asked.stop == null ? [] : [asked.stop].flat(),
    top: asked.top_logprobs ?? 0,
    temperature: asked.temperature ?? 0,
    topP: Math.max(asked.top_p ?? 1, Number.MIN_VALUE),
    seed: asked.seed ?? randomInt(2 ** 32),
  };
}

const headOf = (model: string): { id: string; created: number; model: string } => ({
  id: `chatcmpl-${randomUUID()}`,
  created: Math.floor(Date.now() / 1000),
  model,
});

const usageOf = ({ promptTokens, tokens }: Said): z.infer<typeof usage> => ({
  prompt_tokens: promptTokens,
  completion_tokens: tokens.length,
  total_tokens: promptTokens + tokens.length,
});

/** A field of our own, where there is something to say. */
const warned = ({ warnings }: Said): { warnings?: readonly string[] } => (warnings.length === 0 ? {} : { warnings });

const bare = ({ id, text, bytes, logProb }: NamedToken): z.infer<typeof logprob> => ({
  token: text,
  token_id: id,
  logprob: logProb,
  bytes: [...bytes],
});

const logprobOf = (token: SaidToken) => ({ ...bare(token), top_logprobs: token.top.map(bare) });

async function streamed(services: Services, c: Ctx, asked: ChatRequest, order: Order): Promise<Response> {
  const head = headOf(asked.model);
  const controller = new AbortController();
  const leave = (): void => controller.abort(stopped('the client left'));
  clientOf(c).addEventListener('abort', leave, { once: true });
  const choice = (delta: object, more: { logprobs?: unknown; finish_reason?: string | null } = {}) => ({
    ...head,
    object: 'chat.completion.chunk',
    choices: [{ index: 0, delta, logprobs: null, finish_reason: null, ...more }],
    ...(asked.stream_options?.include_usage === true ? { usage: null } : {}),
  });
  // An error before the first token has its own status, so the response begins with the first token or with the end.
  let sink: EventSink | undefined;
  const early: object[] = [];
  const send = (chunk: object): void => {
    if (sink === undefined) early.push(chunk);
    else sink.event(chunk);
  };
  let begin: () => void;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  send(choice({ role: 'assistant', content: '', refusal: null }));
  let sent = '';
  const work = answer(services, order, controller.signal, (token) => {
    sent += token.added;
    const logprobs = asked.logprobs === true ? { logprobs: { content: [logprobOf(token)], refusal: null } } : {};
    if (token.added !== '' || asked.logprobs === true) send(choice({ content: token.added }, logprobs));
    begin();
  });
  work.catch(() => {}).finally(c.get('holdBody')?.() ?? (() => {}));
  await Promise.race([begun, work]);
  return eventStream(
    async (to) => {
      sink = to;
      for (const chunk of early) to.event(chunk);
      try {
        const said = await work;
        services.metrics.tokens(order.under.model, said.promptTokens, said.tokens.length);
        // The text stream held back what could have become a stop word or trailing white space.
        const rest = said.text.slice(sent.length);
        if (rest !== '') to.event(choice({ content: rest }));
        to.event({ ...choice({}, { finish_reason: said.finish }), ...warned(said) });
        if (asked.stream_options?.include_usage === true)
          to.event({ ...head, object: 'chat.completion.chunk', choices: [], usage: usageOf(said) });
      } catch (error) {
        if (isStop(error)) return;
        to.event(services.errorBody(error));
      }
      to.raw('[DONE]');
    },
    leave,
    { 'x-request-id': c.get('requestId') },
  );
}
