/** Parts of the server that need no model: streams of text, turns, budgets, shapes of JSON. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Budget } from '../../apps/server/budget.ts';
import { Engine } from '../../apps/server/engine/engine.ts';
import { TextStream } from '../../apps/server/engine/text-stream.ts';
import { ApiError, stopped } from '../../apps/server/errors.ts';
import { parseJson } from '../../apps/server/http/json.ts';
import { checkReach } from '../../apps/server/options.ts';
import { Queue } from '../../apps/server/queue.ts';

fc.configureGlobal({ seed: 1 });

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof ApiError ? error.code : String(error);
  }
  return 'nothing';
};

test('an engine whose thread dies says why to all who wait, and begins again with the next request', async () => {
  const failures: string[] = [];
  const engine = new Engine({ models: ['/nowhere'], weights: [] }, (error) => void failures.push(error.message));
  const both = [engine.run('facts', null), engine.run('facts', null)];
  for (const one of both) await expect(one).rejects.toThrow('no model at /nowhere');
  await expect(engine.run('facts', null)).rejects.toThrow('no model at /nowhere');
  // It has never answered: whoever asked says why, and nothing is reported beside that.
  expect(failures).toEqual([]);
  expect(engine.failures).toBe(2);
  await engine.close();
  await expect(engine.run('facts', null)).rejects.toThrow('closed');
});

describe('text as it streams', () => {
  // Tokens are pieces of bytes, so that a character may need several.
  const streamOf = (text: string, sizes: readonly number[], stop: string[]): { pieces: string[]; whole: string } => {
    const bytes = Buffer.from(text);
    const cuts = [0];
    for (const size of sizes) cuts.push(Math.min(bytes.length, cuts.at(-1)! + size));
    cuts.push(bytes.length);
    const stream = new TextStream(
      (ids) => Buffer.concat(ids.map((i) => bytes.subarray(cuts[i], cuts[i + 1]))).toString('utf8'),
      stop,
    );
    const pieces: string[] = [];
    for (let i = 0; i < cuts.length - 1 && !stream.ended; i++) pieces.push(stream.push(i));
    pieces.push(stream.finish());
    return { pieces, whole: pieces.join('') };
  };
  const words = fc
    .array(fc.constantFrom('a', 'stop', 'st', ' ', 'é', '水', '🦊', 'op', '\n'), { maxLength: 12 })
    .map((all) => all.join(''));
  const cuts = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 12 });

  test('the pieces are the answer, whatever the tokens are', () => {
    fc.assert(
      fc.property(words, cuts, (text, sizes) => {
        expect(streamOf(text, sizes, []).whole).toBe(text.trim());
      }),
    );
  });

  test('nothing from a stop word on is told, not even its beginning', () => {
    fc.assert(
      fc.property(words, cuts, (text, sizes) => {
        const { whole } = streamOf(text, sizes, ['stop', 'op\n']);
        const places = ['stop', 'op\n'].map((word) => text.trimStart().indexOf(word)).filter((at) => at >= 0);
        const end = places.length === 0 ? undefined : Math.min(...places);
        expect(whole).toBe(text.trimStart().slice(0, end).trimEnd());
      }),
    );
  });
});

describe('turns', () => {
  test('a few at once, the others in their order, and no more than may wait', async () => {
    const queue = new Queue(1, 3);
    const { signal } = new AbortController();
    const began: number[] = [];
    const ends: (() => void)[] = [];
    const work = (i: number) =>
      queue.run('short', signal, () => {
        began.push(i);
        return new Promise<void>((resolve) => ends.push(resolve));
      });
    const all = [0, 1, 2, 3, 4].map(work);
    await expect(work(5)).rejects.toMatchObject({ status: 429, code: 'queue_full', retryAfter: expect.any(Number) });
    expect([queue.running, queue.waiting, began]).toEqual([2, 3, [0, 1]]);
    for (let i = 0; i < 5; i++) {
      await expect.poll(() => ends.length).toBeGreaterThan(i);
      ends[i]!();
      await all[i];
    }
    expect(began).toEqual([0, 1, 2, 3, 4]);
    expect([queue.running, queue.waiting]).toEqual([0, 0]);
  });

  test('who gives up while waiting leaves the queue; work that fails frees its turn', async () => {
    const queue = new Queue(1, 5);
    const run = <T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> => queue.run('long', signal, work);
    const first = run(
      new AbortController().signal,
      () => new Promise((_, reject) => setTimeout(() => reject(new Error('failed')), 50)),
    );
    const leaving = new AbortController();
    const second = run(leaving.signal, () => Promise.resolve('never'));
    const third = run(new AbortController().signal, () => Promise.resolve('third'));
    leaving.abort(stopped('left'));
    await expect(second).rejects.toThrow('left');
    expect(queue.waiting).toBe(1);
    await expect(first).rejects.toThrow('failed');
    expect(await third).toBe('third');
  });
});

test('one turn is left for short work, whatever long work there is', async () => {
  const queue = new Queue(2, 10);
  const { signal } = new AbortController();
  const ends: (() => void)[] = [];
  const began: string[] = [];
  const work = (length: 'short' | 'long', name: string) =>
    queue.run(length, signal, () => {
      began.push(name);
      return new Promise<void>((resolve) => ends.push(resolve));
    });
  const all = [work('long', 'l1'), work('long', 'l2'), work('long', 'l3'), work('short', 's1'), work('short', 's2')];
  expect([began, queue.running, queue.waiting]).toEqual([['l1', 'l2', 's1'], 3, 2]);
  // The turn of a short one is not given to a long one.
  ends[2]!();
  await all[3];
  expect(began.at(-1)).toBe('s2');
  for (let i = 0; began.length < 5 || i < ends.length; i++) {
    ends[i]?.();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(all);
  expect([began.at(-1), queue.running, queue.waiting]).toEqual(['l3', 0, 0]);
});

test('a budget is never overdrawn, keeps the order, and is whole again in the end', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ amount: fc.integer({ min: 1, max: 15 }), leaves: fc.boolean() }), { maxLength: 12 }),
      async (parts) => {
        const budget = new Budget(10);
        const order: number[] = [];
        const all = parts.map(async ({ amount, leaves }, i) => {
          const leaving = new AbortController();
          if (leaves) setImmediate(() => leaving.abort(stopped('left')));
          const release = await budget.take(amount, leaving.signal).catch(() => undefined);
          if (release === undefined) return;
          order.push(i);
          expect(budget.used).toBeLessThanOrEqual(10);
          await new Promise((resolve) => setImmediate(resolve));
          release();
          release();
        });
        await Promise.all(all);
        expect(order).toEqual([...order].sort((a, b) => a - b));
        expect(budget.used).toBe(0);
      },
    ),
    { numRuns: 50 },
  );
});

test('JSON that is nested too deeply or has too many values is refused, whatever its strings hold', () => {
  const depthOf = (value: unknown): number =>
    typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;
  fc.assert(
    fc.property(fc.json({ maxDepth: 6 }), fc.integer({ min: 1, max: 6 }), (text, limit) => {
      const deep = depthOf(JSON.parse(text)) > limit;
      expect(codeOf(() => parseJson(text, { jsonDepth: limit, jsonValues: 1e6 }))).toBe(deep ? 'json_too_deep' : 'nothing');
    }),
  );
  const limits = { jsonDepth: 16, jsonValues: 1000 };
  expect(codeOf(() => parseJson('['.repeat(1e6), limits))).toBe('json_too_deep');
  expect(codeOf(() => parseJson('"[[[[\\"[[[\\\\"', { ...limits, jsonDepth: 1 }))).toBe('nothing');
  expect(codeOf(() => parseJson(`[${'1,'.repeat(998)}1]`, limits))).toBe('nothing');
  expect(codeOf(() => parseJson(`[${'1,'.repeat(1000)}1]`, limits))).toBe('json_too_large');
  expect(codeOf(() => parseJson(`[${'",",'.repeat(800)}""]`, limits))).toBe('nothing');
  for (const key of ['length', 'size'])
    expect(codeOf(() => parseJson(`{"${key}": {"toString": 1}}`, limits))).toBe('invalid_value');
  for (const text of ['', '{', '{"a"}', 'nul', '"\\x"', '[1,]'])
    expect(codeOf(() => parseJson(text, limits))).toBe('invalid_json');
});

test('without a key only this machine is listened to', () => {
  expect(() => checkReach({ host: '0.0.0.0' })).toThrow('give a key');
  expect(() => checkReach({ host: '127.0.0.1' })).not.toThrow();
  expect(() => checkReach({ host: '0.0.0.0', key: 'long-enough' })).not.toThrow();
  for (const key of ['', 'short', 'white space', 'schlüssel-lang'])
    expect(() => checkReach({ host: '127.0.0.1', key })).toThrow('at least 8');
});
