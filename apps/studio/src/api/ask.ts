/** Asking: the answer token by token, each with its probability and what else was likely. */
import { ApiError, events } from './client.ts';
import type { Token } from './types.ts';

export interface Question {
  /** Model reference: `mini-llava`, `mini-llava@set`. */
  model: string;
  /** Data URL or a path of the server; absent: a question without a picture. */
  image?: string | undefined;
  prompt: string;
}

export const roles = ['system', 'user', 'assistant'] as const;

/** One message of a conversation. */
export interface Turn {
  role: (typeof roles)[number];
  text: string;
  /** Before the text. */
  pictures: readonly string[];
}

export interface Conversation {
  model: string;
  turns: readonly Turn[];
}

/** A question is a conversation of one message. */
export const conversationOf = ({ model, image, prompt }: Question): Conversation => ({
  model,
  turns: [{ role: 'user', text: prompt, pictures: image === undefined ? [] : [image] }],
});

export interface Answer {
  tokens: Token[];
  finished: boolean;
  /** the answer goes on beyond these tokens */
  cut?: boolean;
}

/** Tokens of an answer at most. */
export const maxTokens = 256;

interface Chunk {
  error?: { message: string; code?: string };
  choices?: {
    finish_reason: string | null;
    logprobs?: {
      content?:
        | {
            token: string;
            token_id: number;
            logprob: number;
            top_logprobs: { token: string; token_id: number; logprob: number }[];
          }[]
        | null;
    } | null;
  }[];
}

export async function* ask({ model, turns }: Conversation, signal?: AbortSignal): AsyncGenerator<Token, { cut: boolean }> {
  let cut = false;
  const messages = turns.map(({ role, text, pictures }) => ({
    role,
    content: [...pictures.map((url) => ({ type: 'image_url', image_url: { url } })), { type: 'text', text }],
  }));
  const body = {
    model,
    messages,
    max_tokens: maxTokens,
    stream: true,
    logprobs: true,
    top_logprobs: 5,
  };
  for await (const { data } of events('/v1/chat/completions', { method: 'POST', body, signal })) {
    if (data === '[DONE]') break;
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw new ApiError(500, chunk.error.message, chunk.error.code);
    if (chunk.choices?.[0]?.finish_reason === 'length') cut = true;
    for (const { token, token_id, logprob, top_logprobs } of chunk.choices?.[0]?.logprobs?.content ?? []) {
      yield {
        id: token_id,
        text: token,
        probability: Math.exp(logprob),
        top: top_logprobs.map((other) => ({ id: other.token_id, text: other.token, probability: Math.exp(other.logprob) })),
      };
    }
  }
  return { cut };
}
