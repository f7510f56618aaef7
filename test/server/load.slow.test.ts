/** 32 clients at once for a minute, after 20 seconds to warm up: no error but "queue full", and memory that stays as it is. */
import { expect, test } from 'vitest';
import { loadServer } from '../../bench/serve.ts';

test('32 clients at once, measured for 60 seconds', async () => {
  // Of a heap that may grow, RSS shows when V8 last collected it; of a small one, what is held.
  const nodeFlags = ['--max-old-space-size=64', '--max-semi-space-size=8'];
  const figures = await loadServer({ clients: 32, seconds: 80, warmUp: 20, nodeFlags });
  console.log(JSON.stringify(figures));
  expect(figures.errors).toEqual({});
  expect(figures.answered).toBeGreaterThan(32);
  expect(figures.streamed).toBeGreaterThan(0);
  const { first, last } = figures.memory;
  expect(last).toBeLessThan(1.1 * first);
}, 300_000);
