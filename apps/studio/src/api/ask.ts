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

export async function* ask({ model, image, prompt }: Question, signal?: AbortSignal): AsyncGenerator<Token, { cut: boolean }> {
  let cut = false;
  const content = [
    ...(image === undefined ? [] : [{ type: 'image_url', image_url: { url: image } }]),
    { type: 'text', text: prompt },
  ];
  const body = {
    model,
    messages: [{ role: 'user', content }],
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
