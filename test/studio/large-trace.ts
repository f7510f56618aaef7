/** An attribution of a large model's size (LLaVA-1.5: 24x24 patches, 32 layers), drawn from a seed and given to a page as the server gives its own. */
import type { Page } from 'playwright-core';
import { Random } from '../../src/random.ts';

interface Size {
  layers: number;
  grid: [number, number];
  tokens: number;
}

export function largeTrace({ layers, grid, tokens }: Size) {
  const random = new Random('large trace');
  const many = (count: number): number[] => Array.from({ length: count }, () => random.uniform());
  const numbers = Array.from({ length: layers }, (_, layer) => layer);
  const words = ['two', ' red', ' pizzas', ' and', ' a', ' cat'].slice(0, tokens);
  const key = (position: number) => ({ id: position, text: words[position], predicted: true, probability: 0.9 });
  const reasons = (position: number) => {
    const parts = { attn: many(layers), mlp: many(layers) };
    return {
      object: 'attribution',
      model: 'mini-llava',
      prompt: '',
      key: key(position),
      layers: numbers,
      modules: { contribution: parts, prob: { ...parts, layer: many(layers) }, logit: { ...parts, layer: many(layers) } },
      lens: numbers.map((layer) => ({
        layer,
        key_probability: 0.5,
        key_rank: 0,
        tokens: [0, 1, 2, 3, 4].map((id) => ({ id, text: words[id] ?? ' word', probability: 0.5 / (id + 1) })),
      })),
    };
  };
  const maps = (position: number) => ({
    key: key(position),
    layers: numbers,
    visual: {
      grid,
      seen: [0, 0, 1, 1],
      layers: numbers.map((layer) => ({
        ...{ layer, sigma: 1, draws: 256, converged: true, carries_weight: true, error: 0.01 },
        patches: many(grid[0] * grid[1]),
      })),
    },
  });
  const jobs: unknown[] = [];
  const json = (body: unknown, status = 200) => ({ status, contentType: 'application/json', body: JSON.stringify(body) });

  return {
    async serve(page: Page): Promise<void> {
      await page.route('**/v1/chat/completions', (route) => {
        const chunks = words.map((token, id) => ({
          choices: [{ finish_reason: null, logprobs: { content: [{ token, token_id: id, logprob: -0.1, top_logprobs: [] }] } }],
        }));
        const body = [...chunks.map((chunk) => JSON.stringify(chunk)), '[DONE]'].map((data) => `data: ${data}\n\n`).join('');
        return route.fulfill({ status: 200, contentType: 'text/event-stream', body });
      });
      await page.route('**/v1/attributions', (route) => {
        const { position = 0, background } = route.request().postDataJSON() as { position?: number; background?: boolean };
        if (background !== true) return route.fulfill(json(reasons(position)));
        jobs.push(maps(position));
        return route.fulfill(json({ object: 'job', id: `large${jobs.length - 1}`, state: 'queued', progress: {} }, 202));
      });
      await page.route('**/v1/jobs/*/events', (route) => {
        const id = Number(/large(\d+)/.exec(route.request().url())?.[1]);
        const job = { id: `large${id}`, state: 'done', progress: { done: 32, total: 32, note: null }, result: jobs[id] };
        return route.fulfill({
          status: 200,
          contentType: 'text/event-stream',
          body: `event: end\ndata: ${JSON.stringify(job)}\n\n`,
        });
      });
    },
  };
}
