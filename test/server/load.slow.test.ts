/** 32 clients at once for a minute: no error but "queue full", and memory that stays as it is. */
import { expect, test } from 'vitest';
import { loadServer } from '../../bench/serve.ts';

test('32 clients at once for 60 seconds', async () => {
  const figures = await loadServer({ clients: 32, seconds: 60, warmUp: 15 });
  console.log(JSON.stringify(figures));
  expect(figures.errors).toEqual({});
  expect(figures.answered).toBeGreaterThan(32);
  expect(figures.streamed).toBeGreaterThan(0);
  const { first, last } = figures.memory;
  expect(last).toBeLessThan(1.1 * first);
}, 180_000);
