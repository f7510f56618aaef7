/** 32 clients at once for a minute, after 20 seconds to warm up: no error but "queue full", and memory that stays as it is. */
import { expect, test } from 'vitest';
import { loadServer } from '../../bench/serve.ts';

test('32 clients at once, measured for 60 seconds', async () => {
  const figures = await loadServer({ clients: 32, seconds: 80, warmUp: 20 });
  console.log(JSON.stringify(figures));
  expect(figures.errors).toEqual({});
  expect(figures.answered).toBeGreaterThan(32);
  expect(figures.streamed).toBeGreaterThan(0);
  const { first, last } = figures.memory;
  // A heap grows until it is collected; what every request left behind would grow on.
  expect(last).toBeLessThan(1.3 * first);
}, 300_000);
