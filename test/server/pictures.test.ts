/** Pictures that clients send: forms of data URLs, addresses, files that are no pictures, and the process that reads them. */

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import sharp from 'sharp';
import { afterAll, describe, expect, test } from 'vitest';
import { ApiError, stopped } from '../../apps/server/errors.ts';
import { parseHost, parseOrigin } from '../../apps/server/http/host.ts';
import { fromDataUrl, Pictures } from '../../apps/server/pictures/pictures.ts';
import { fetchPicture, isInward } from '../../apps/server/pictures/remote.ts';

fc.configureGlobal({ seed: 1 });

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof ApiError ? error.code : String(error);
  }
  return 'nothing';
};

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

  test('parts of a picture are hidden in the file of its own, and only they; the same parts give the same name', async () => {
    const source = { url: url(await png(20, 10)), param: 'image' };
    const whole = await pictures.asPng(source, signal);
    const hide = { regions: [[0.5, 0, 0.25, 1] as const], by: 'grey' as const };
    const found = await pictures.asPng(source, signal, hide);
    expect([found.width, found.height, found.id === whole.id]).toEqual([20, 10, false]);
    expect((await pictures.asPng(source, signal, hide)).id).toBe(found.id);
    const data = await sharp(found.data).raw().toBuffer();
    const changed = Array.from({ length: 20 }, (_, x) => data[3 * x] === 128 && data[3 * (9 * 20 + x) + 2] === 128);
    expect(changed).toEqual(Array.from({ length: 20 }, (_, x) => x >= 10 && x < 15));
    // The blur of one colour is that colour.
    expect((await pictures.asPng(source, signal, { ...hide, by: 'blur' })).id).toBe(whole.id);
  });

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
