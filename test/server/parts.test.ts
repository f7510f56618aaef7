/** Parts of the server that need no model: histories, streams of text, turns, depth of JSON, pictures and their addresses. */

import { rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import sharp from 'sharp';
import { afterAll, describe, expect, test } from 'vitest';
import { Budget } from '../../apps/server/budget.ts';
import { added, deleted, entriesOf, type History, kept, reverted, switched } from '../../apps/server/edits/history.ts';
import { EditStore } from '../../apps/server/edits/store.ts';
import { Engine } from '../../apps/server/engine/engine.ts';
import { TextStream } from '../../apps/server/engine/text-stream.ts';
import { ApiError, stopped } from '../../apps/server/errors.ts';
import { parseHost, parseOrigin } from '../../apps/server/http/host.ts';
import { parseJson } from '../../apps/server/http/json.ts';
import { checkReach } from '../../apps/server/options.ts';
import { fromDataUrl, Pictures } from '../../apps/server/pictures/pictures.ts';
import { fetchPicture, isInward } from '../../apps/server/pictures/remote.ts';
import { Queue } from '../../apps/server/queue.ts';
import { temporaryFolder } from '../tiny-world.ts';

fc.configureGlobal({ seed: 1 });

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof ApiError ? error.code : String(error);
  }
  return 'nothing';
};

describe('history of a set', () => {
  type Step = ['add'] | ['switch', number, boolean] | ['undo'] | ['restore', number];
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.constant<Step>(['add']),
    fc.tuple(fc.constant('switch' as const), fc.nat(5), fc.boolean()),
    fc.constant<Step>(['undo']),
    fc.tuple(fc.constant('restore' as const), fc.nat(30)),
  );
  const run = (steps: readonly Step[]): History =>
    steps.reduce<History>((history, [what, ...given], at) => {
      if (what === 'add') return added(history, `e${at}`, at);
      if (what === 'undo') return reverted(history, undefined, at) ?? history;
      if (what === 'restore') return reverted(history, given[0] as number, at) ?? history;
      const ids = [...new Set(history.flatMap(({ entries }) => entries.map(({ id }) => id)))];
      const id = ids[(given[0] as number) % Math.max(1, ids.length)];
      return id === undefined ? history : switched(history, id, given[1] as boolean, at);
    }, []);

  test('numbers rise by one and what was is kept; any revision can be restored, and its restoring undone', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.nat(30), (steps, number) => {
        const history = run(steps);
        expect(history.map(({ revision }) => revision)).toEqual(history.map((_, i) => i + 1));
        const back = reverted(history, number, 99);
        if (history.length === 0 || number > history.length) {
          expect(back).toBeUndefined();
          return;
        }
        expect(entriesOf(back!)).toEqual(number === 0 ? [] : history[number - 1]!.entries);
        const again = reverted(back!, undefined, 100);
        if (JSON.stringify(entriesOf(back!)) !== JSON.stringify(entriesOf(history)))
          expect(entriesOf(again!)).toEqual(entriesOf(history));
      }),
    );
  });

  test('undoing again and again goes back through all changes to the empty set, and then there is nothing left', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constant<Step>(['add']), fc.tuple(fc.constant('switch' as const), fc.nat(5), fc.boolean())), {
          maxLength: 20,
        }),
        (steps) => {
          const history = run(steps);
          const states = [...history].reverse().map(({ entries }) => entries);
          let now = history;
          for (const before of [...states.slice(1), ...(history.length > 0 ? [[]] : [])]) {
            now = reverted(now, undefined, 99)!;
            expect(entriesOf(now)).toEqual(before);
          }
          expect(reverted(now, undefined, 100)).toBeUndefined();
        },
      ),
    );
  });

  test('a deleted edit is in no state that can be gone back to', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 20 }), (steps) => {
        const history = deleted(run([['add'], ...steps]), 'e0', 50);
        for (let number = 0; number <= history.length; number++)
          expect(entriesOf(reverted(history, number, 99)!).map(({ id }) => id)).not.toContain('e0');
        for (let now: History | undefined = history; now !== undefined; now = reverted(now, undefined, 99))
          expect(entriesOf(now).map(({ id }) => id)).not.toContain('e0');
      }),
    );
  });

  test('is bounded', () => {
    let history: History = added([], 'e', 0);
    for (let i = 0; i < 2 * kept; i++) history = switched(history, 'e', i % 2 === 1, i);
    expect(history).toHaveLength(kept);
    expect(history.at(-1)!.revision).toBe(2 * kept + 1);
    expect(reverted(history, 1, 0)).toBeUndefined();
  });
});

test('one server at a time uses a folder; the lock of a process that ended is taken over', () => {
  const folder = temporaryFolder();
  const limits = { edits: 10, editsPerSet: 5 };
  const store = new EditStore(folder, limits);
  expect(() => new EditStore(folder, limits)).toThrow('in use by another server');
  store.close();
  new EditStore(folder, limits).close();
  rmSync(folder, { recursive: true });
});

test('an engine whose thread dies says why to all who wait, and begins again with the next request', async () => {
  const failures: string[] = [];
  const engine = new Engine({ models: ['/nowhere'], weights: [] }, (error) => void failures.push(error.message));
  const both = [engine.run('facts', null), engine.run('facts', null)];
  for (const one of both) await expect(one).rejects.toThrow('no model at /nowhere');
  await expect(engine.run('facts', null)).rejects.toThrow('no model at /nowhere');
  expect(failures).toHaveLength(2);
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

describe('pictures', () => {
  const pictures = new Pictures({ limits: { pixels: 10_000, bodyBytes: 50_000 }, allowedHosts: [], find: () => undefined });
  afterAll(() => pictures.close());
  const { signal } = new AbortController();
  const read = (url: string, by = signal) => pictures.with([{ url, param: 'image' }], by, ([image]) => image!);
  const png = (width: number, height: number) =>
    sharp({ create: { width, height, channels: 3, background: '#345' } })
      .png()
      .toBuffer();
  const url = (bytes: Uint8Array) => `data:image/png;base64,${Buffer.from(bytes).toString('base64')}`;

  test('any text that is no picture is refused as the image, with the field named', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.string().map((text) => `data:${text}`),
          fc.string().map((text) => `data:image/png;base64,${text}`),
          fc.uint8Array().map(url),
          fc.uint8Array().map((bytes) => url(Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47]), bytes]))),
        ),
        async (text) => {
          await expect(read(text)).rejects.toMatchObject({ status: 400, param: 'image' });
        },
      ),
      { numRuns: 200 },
    );
  });

  test('pictures that are too large are refused before they are unpacked; so are narrow ones, drawings and cut-off files', async () => {
    // A few hundred bytes that would be 400 million pixels: only the header is read.
    const bomb = Buffer.from(await png(20, 20));
    bomb.writeUInt32BE(20_000, 16);
    bomb.writeUInt32BE(20_000, 20);
    const began = performance.now();
    await expect(read(url(bomb))).rejects.toMatchObject({ status: 400, code: 'invalid_image' });
    expect(performance.now() - began).toBeLessThan(2000);
    await expect(read(url(await png(101, 100)))).rejects.toThrow('more than the 10000 allowed');
    await expect(read(url(await png(1, 200)))).rejects.toThrow('100 to 1');
    await expect(read(url(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>')))).rejects.toThrow('not a picture');
    await expect(
      read(
        url(
          (
            await sharp({ create: { width: 90, height: 90, channels: 3, background: 'red' } })
              .jpeg()
              .toBuffer()
          ).subarray(0, 300),
        ),
      ),
    ).rejects.toMatchObject({ code: 'invalid_image' });
    expect(await read(url(await png(8, 6)))).toMatchObject({ width: 8, height: 6 });
    expect(codeOf(() => fromDataUrl('data:image/png;base64,AAA=A', 'x'))).toBe('invalid_image');
  });

  test('the decoder can be ended: a picture that is given up leaves it to the next; one of several is named, equal ones are read once', async () => {
    const good = url(await png(9, 7));
    const leaving = new AbortController();
    const left = read(good, leaving.signal);
    setTimeout(() => leaving.abort(stopped('left')), 5);
    await left.catch((error: Error) => expect(error.message).toBe('left'));
    const waiting = new AbortController();
    const behind = [read(good), read(good, waiting.signal), read(good)];
    waiting.abort(stopped('left, too'));
    await expect(behind[1]).rejects.toThrow('left, too');
    expect([(await behind[0])!.width, (await behind[2])!.width]).toEqual([9, 9]);
    const [a, b, c] = await pictures.with(
      [good, url(await png(4, 4)), good].map((each, i) => ({ url: each, param: `p${i}` })),
      signal,
      (images) => [...images],
    );
    expect([a === c, b!.width]).toEqual([true, 4]);
    const sources = [good, url(Buffer.from('x'.repeat(40)))].map((each, i) => ({ url: each, param: `p${i}` }));
    await expect(pictures.with(sources, signal, () => 1)).rejects.toMatchObject({ param: 'p1', code: 'invalid_image' });
    const many = await Promise.all([97, 98, 99, 100, 96].map((width) => png(width, 100)));
    const large = many.map((each, i) => ({ url: url(each), param: `p${i}` }));
    await expect(pictures.with(large, signal, () => 1)).rejects.toThrow('together');
  });

  test('a drawing that begins as a picture is refused at once, wherever the word stands', async () => {
    const svg = (n: number) =>
      `<svg xmlns="http://www.w3.org/2000/svg" width="4000" height="4000">${'<rect width="9" height="9"/>'.repeat(n)}</svg>`;
    const began = performance.now();
    for (const begin of ['<PNG:', 'II*\0\b\0\0\0', 'RIFF\0\0\0\0WEBP', '\0\0\0 ftypavif'])
      for (const before of ['', ' '.repeat(900), ' '.repeat(5000)])
        await expect(read(url(Buffer.from(begin + before + svg(1000), 'latin1')))).rejects.toMatchObject({
          code: 'invalid_image',
        });
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test('data URLs in every form that RFC 2397 and RFC 4648 allow are the same bytes', () => {
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
    const percent = (text: string, which: RegExp) =>
      text.replace(which, (letter) => `%${letter.charCodeAt(0).toString(16).padStart(2, '0').toUpperCase()}`);
    const lines = (text: string, width: number, end: string) =>
      text.replace(new RegExp(`.{1,${width}}`, 'g'), (line) => line + end);
    const forms: ((bytes: Uint8Array) => string)[] = [
      (b) => `data:image/png;base64,${base64(b)}`,
      (b) => `data:image/png;base64,${lines(base64(b), 76, '\n')}`,
      (b) => `data:image/png;base64,${lines(base64(b), 64, '\r\n')}`,
      (b) => `data:image/png;base64, ${base64(b)}\n`,
      (b) => `data:image/png;base64,${lines(base64(b), 1, '\t')}`,
      (b) => `data:image/png;base64,${base64(b).replace(/=+$/, '')}`,
      (b) => `data:image/png;base64,${Buffer.from(b).toString('base64url')}`,
      (b) => `data:image/png;base64,${percent(base64(b), /[+/=]/g)}`,
      (b) => `data:image/png;base64,${lines(base64(b), 76, '%0A')}`,
      (b) => `DATA:IMAGE/PNG;BASE64,${base64(b)}`,
      (b) => ` data:image/png; base64,${base64(b)}`,
      (b) => `data:;base64,${base64(b)}`,
      (b) => `data:image/png;charset=utf-8;name="a picture.png";base64,${base64(b)}`,
      (b) => `data:image/png,${percent(Buffer.from(b).toString('latin1'), /[\s\S]/g)}`,
      (b) => `data:application/octet-stream,${percent(Buffer.from(b).toString('latin1'), /[^A-Za-z0-9_.~-]/g).toLowerCase()}`,
    ];
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        forms.forEach((form, i) => {
          // The last one is written in small letters.
          const lower =
            i === forms.length - 1 ? Buffer.from(Buffer.from(bytes).toString('latin1').replace(/[A-Z]/g, 'q'), 'latin1') : bytes;
          expect([i, ...fromDataUrl(form(lower), 'x')]).toEqual([i, ...lower]);
        });
      }),
    );
    for (const wrong of [
      'data:image/png;base64',
      'image/png;base64,AAAA',
      'data:;base64,A',
      'data:;base64,A=AA',
      'data:;base64,AA===',
      'data:;base64,AA水A',
      'data:;base64,A!AA',
      'data:,%4',
      'data:,%4g',
      'data:,%',
      `data:${'x'.repeat(2000)},`,
    ])
      expect([wrong, codeOf(() => fromDataUrl(wrong, 'x'))]).toEqual([wrong, 'invalid_image']);
    // No form of many megabytes holds the thread for long, or runs out of stack.
    const much = 'A'.repeat(24_000_000);
    const long = [much, `${much}!`, 'AAA \n'.repeat(6_000_000), '%41'.repeat(8_000_000)];
    const began = performance.now();
    for (const form of long) codeOf(() => fromDataUrl(`data:;base64,${form}`, 'x'));
    expect(performance.now() - began).toBeLessThan(4000);
  });

  test('addresses of this machine and of private networks are known in every notation', () => {
    for (const address of [
      '127.0.0.1',
      '10.1.2.3',
      '192.168.0.1',
      '169.254.169.254',
      '172.20.0.1',
      '100.64.0.1',
      '0.0.0.0',
      '::1',
      '::',
      'fe80::1',
      'fd00::1',
      '::ffff:10.0.0.1',
      '::ffff:7f00:1',
      '::127.0.0.1',
      '::a00:1',
      'fec0::1',
      'feff::1',
      '64:ff9b::8.8.8.8',
      '64:ff9b:1::1',
      '64:ff9b:1:ffff::10.0.0.1',
      '100::1',
      '2001::1',
      '2001:0:a00:1::',
      '2001:10::1',
      '2002:7f00:1::',
      '3fff::1',
      '5f00::1',
      '4000::1',
      'ff02::1',
      'fe80::1%eth0',
      '192.0.2.1',
      '198.51.100.1',
      '203.0.113.1',
      '192.88.99.1',
      '224.0.0.1',
      '255.255.255.255',
      'no address',
    ])
      expect([address, isInward(address)]).toEqual([address, true]);
    for (const address of ['8.8.8.8', '172.32.0.1', '::ffff:8.8.8.8', '2001:200::1', '2606:4700::1111', '2a00:1450::1'])
      expect([address, isInward(address)]).toEqual([address, false]);
  });

  test('names of hosts and origins have one form, whatever the notation', () => {
    for (const [text, name, port] of [
      ['Images.Example.ORG', 'images.example.org', undefined],
      ['images.example.org.', 'images.example.org', undefined],
      ['images.example.org.:8443', 'images.example.org', 8443],
      ['bücher.example', 'xn--bcher-kva.example', undefined],
      ['xn--bcher-kva.example:80', 'xn--bcher-kva.example', 80],
      ['127.1', '127.0.0.1', undefined],
      ['0x7f000001:443', '127.0.0.1', 443],
      ['[::1]:8080', '[::1]', 8080],
      ['::1', '[::1]', undefined],
      ['0:0:0:0:0:0:0:1', '[::1]', undefined],
    ] as const)
      expect([text, parseHost(text)]).toEqual([text, { name, port }]);
    for (const wrong of [
      '',
      'a b',
      'http://example.org',
      'example.org/path',
      'user@example.org',
      'example.org:99999',
      '[::1',
      'a?b',
      '*',
    ])
      expect([wrong, codeOf(() => parseHost(wrong))]).toEqual([
        wrong,
        expect.stringMatching(/is not the name of a host|port above/),
      ]);
    expect(parseOrigin('HTTP://LocalHost:80/')).toBe('http://localhost');
    for (const wrong of ['localhost:5173', 'ftp://x', 'http://x/path', '*', 'null'])
      expect(codeOf(() => parseOrigin(wrong))).toContain('not an origin');
  });

  describe('from other machines', () => {
    const server = createServer((request, response) => {
      if (request.url === '/away') response.writeHead(302, { location: 'http://169.254.169.254/secret' }).end();
      else if (request.url === '/round') response.writeHead(302, { location: '/round' }).end();
      else if (request.url === '/long') response.end(Buffer.alloc(60_000));
      else if (request.url === '/none') response.writeHead(404).end();
      else response.end('picture');
    });
    const listening = new Promise<number>((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)),
    );
    afterAll(() => void server.close());
    const fetched = (from: string, allowed: readonly string[]) =>
      fetchPicture(from, { allowed: allowed.map(parseHost), maxBytes: 50_000, signal });

    test('only from hosts on the list, and never inward by a name or a redirect', async () => {
      const port = await listening;
      const here = `http://127.0.0.1:${port}`;
      const list = [`127.0.0.1:${port}`];
      expect(Buffer.from(await fetched(`${here}/picture`, list)).toString()).toBe('picture');
      const refused = async (from: string, allowed: readonly string[], why: string) =>
        expect(fetched(from, allowed)).rejects.toMatchObject({
          status: 400,
          code: 'image_url_refused',
          message: expect.stringContaining(why),
        });
      expect(Buffer.from(await fetched(`${here}/picture`, [`127.1:${port}`])).toString()).toBe('picture');
      await refused('https://127.0.0.1/picture', ['127.0.0.1:80'], 'no pictures from 127.0.0.1');
      await refused(`${here}/picture`, [], 'no pictures from other machines');
      await refused(`http://127.0.0.1:1/picture`, list, 'no pictures from 127.0.0.1:1');
      await refused(`http://2130706433:${port}/picture`, ['elsewhere'], 'no pictures from 127.0.0.1');
      await refused(`http://localhost:${port}/picture`, [`localhost:${port}`], 'private network');
      await refused(`http://user:word@127.0.0.1:${port}/`, list, 'no name or password');
      await refused('ftp://127.0.0.1/picture', ['127.0.0.1'], 'http or https');
      await refused(`${here}/away`, list, 'no pictures from 169.254.169.254');
      await refused(`${here}/round`, list, 'leads on');
      await refused(`${here}/long`, list, 'more than 50000 bytes');
      await refused(`${here}/none`, list, 'answered 404');
    });
  });
});
