/** Whatever is sent to a route, the answer is an error of the API's shape with the right status, nothing secret is logged, and the server stays up. */
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import fc from 'fast-check';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Harness, isErrorBody, messages, requestOf, startHarness } from './harness.ts';

fc.configureGlobal({ seed: 2 });

let harness: Harness;
let valid: Record<string, { method: string; path: string; body: Record<string, unknown> }>;
let editId: string;
const key = 'the-key-of-bad-inputs';
const headers = { authorization: `Bearer ${key}` };
const log: string[] = [];
const secretPrompt = 'What is at the top left? The answer is:';

beforeAll(async () => {
  harness = await startHarness({
    key,
    allowHosts: ['models.example.org'],
    allowOrigins: ['http://studio.example.org'],
    logger: pino({ level: 'debug' }, { write: (line: string) => void log.push(line) }),
    limits: { bodyBytes: 200_000, pixels: 40_000, maxTokens: 8, promptCharacters: 2000, queries: 3, editsPerSet: 2 },
  });
  const record = harness.records.find(({ edit }) => edit === 'counterfactual')!;
  const edit = requestOf(record);
  const made = await ask('POST', '/v1/edits', { model: 'mini-llava', editor: 'vead', ...edit });
  expect(made.status).toBe(201);
  editId = made.json.id;
  const asked = { prompt: secretPrompt, image: edit.image };
  valid = {
    chat: {
      method: 'POST',
      path: '/v1/chat/completions',
      body: {
        model: 'mini-llava',
        messages: messages(secretPrompt, edit.image),
        max_tokens: 2,
        temperature: 0,
        top_p: 1,
        seed: 1,
        stop: ['x'],
        stream: false,
        logprobs: true,
        top_logprobs: 1,
        n: 1,
        user: 'somebody',
      },
    },
    edit: {
      method: 'POST',
      path: '/v1/edits',
      body: { model: 'mini-llava', set: 'default', editor: 'ft-l', ...edit, note: 'a note' },
    },
    update: { method: 'PATCH', path: `/v1/edits/${editId}`, body: { enabled: true, note: 'a note' } },
    revert: { method: 'POST', path: '/v1/sets/mini-llava@default/revert', body: { to: 1 } },
    attribution: {
      method: 'POST',
      path: '/v1/attributions',
      body: {
        model: 'mini-llava',
        ...asked,
        answer: [3],
        position: 1,
        key: 3,
        parts: ['modules'],
        layers: [0],
        draws: 1,
        sigma: 1,
        noise_at: 'norm',
        seed: 0,
        top: 1,
        before: false,
        format: 'json',
      },
    },
    comparison: {
      method: 'POST',
      path: '/v1/comparisons',
      body: {
        before: 'mini-llava',
        after: 'mini-llava',
        queries: [{ kind: 'reliability', ...asked, target: 'pizza' }],
        max_tokens: 1,
        top_logprobs: 0,
        format: 'json',
      },
    },
    conflict: { method: 'POST', path: '/v1/conflicts', body: { model: 'mini-llava', set: 'default', ...edit } },
    picture: {
      method: 'POST',
      path: '/v1/pictures',
      body: { image: edit.image, hide: { regions: [[0.1, 0.2, 0.5, 0.5]], by: 'grey' } },
    },
    suggestion: { method: 'POST', path: '/v1/suggestions', body: { ...asked, target: 'pizza' } },
  };
}, 120_000);
afterAll(() => harness.close());

const ask = (method: string, path: string, body?: unknown, more: Record<string, string> = {}) =>
  harness.ask(method, path, body, { ...headers, ...more });

async function refused(
  method: string,
  path: string,
  body: unknown,
  status: number,
  code: string,
  param?: string | null,
): Promise<void> {
  const answer = await ask(method, path, body);
  expect({ status: answer.status, code: answer.json?.error?.code, path }).toEqual({ status, code, path });
  expect(isErrorBody(answer.json)).toBe(true);
  if (param !== undefined) expect(answer.json.error.param).toBe(param);
}

const isUp = async (): Promise<void> => {
  expect((await harness.ask('GET', '/readyz')).status).toBe(200);
  expect(harness.server.services.engine.failures).toBe(0);
};

test('the right requests of these tests are right', async () => {
  for (const [name, { method, path, body }] of Object.entries(valid)) {
    const { status } = await ask(method, path, body);
    expect([name, status]).toEqual([name, name === 'edit' ? 409 : name === 'picture' ? 201 : 200]);
  }
}, 60_000);

test('fields of any wrong kind, and fields that there are not, are refused by name', async () => {
  const wrong = fc.oneof(
    fc.constantFrom<unknown>(null, {}, [], [[]], -1, 1.5, 1e308, -1e308, '', 'x', true, 'a'.repeat(5000), '\u0000', {
      type: 'x',
    }),
    fc.constantFrom<unknown>(
      ...['length', 'size', 'toString', 'valueOf', 'then', '__proto__'].map((key) => ({ [key]: { toString: 1 } })),
    ),
    fc.jsonValue({ maxDepth: 2 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...Object.keys(valid)), fc.nat(20), wrong, async (name, at, value) => {
      const { method, path, body } = valid[name]!;
      const fields = Object.keys(body);
      const field = fields[at % fields.length]!;
      const answer = await ask(method, path, { ...body, [field]: value });
      if (answer.status < 300) return;
      expect([400, 404, 409]).toContain(answer.status);
      expect(isErrorBody(answer.json)).toBe(true);
    }),
    { numRuns: 250 },
  );
  for (const { method, path, body } of Object.values(valid))
    await refused(method, path, { ...body, surprise: 1 }, 400, 'unknown_field', 'surprise');
  await isUp();
}, 120_000);

test('bodies of any JSON, and bodies that are none, are refused', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.keys(valid)),
      fc.oneof(fc.json({ maxDepth: 4 }), fc.string({ minLength: 1 })),
      async (name, text) => {
        const { method, path } = valid[name]!;
        const answer = await ask(method, path, text);
        // An empty object changes nothing, or undoes.
        if (text.trim() === '{}' && (name === 'update' || name === 'revert')) return;
        expect(answer.status).toBe(400);
        expect(isErrorBody(answer.json)).toBe(true);
      },
    ),
    { numRuns: 120 },
  );
  const { path, body } = valid.chat!;
  await refused('POST', path, `${'['.repeat(1000)}${']'.repeat(1000)}`, 400, 'json_too_deep');
  await refused('POST', path, '{"model": "mini-llava"', 400, 'invalid_json');
  await refused('POST', path, { ...body, model: { length: { toString: 1 } } }, 400, 'invalid_value', 'length');
  const large = await ask('POST', path, { ...body, user: 'x'.repeat(300_000) });
  expect([large.status, large.json.error.code]).toEqual([413, 'body_too_large']);
  for (const type of ['text/plain', 'multipart/form-data; boundary=x', 'application/jsonx']) {
    const answer = await ask('POST', path, JSON.stringify(body), { 'content-type': type });
    expect([answer.status, isErrorBody(answer.json)]).toEqual([415, true]);
  }
  expect((await ask('POST', path)).status).toBe(400);
  await isUp();
}, 120_000);

describe('chat', () => {
  const chat = (change: Record<string, unknown>, status: number, code: string, param?: string) =>
    refused('POST', '/v1/chat/completions', { ...valid.chat!.body, ...change }, status, code, param);

  test('numbers out of range and what is not supported', async () => {
    await chat({ max_tokens: 9 }, 400, 'invalid_value', 'max_tokens');
    await chat({ max_tokens: 0 }, 400, 'invalid_value', 'max_tokens');
    await chat({ max_tokens: 1e300 }, 400, 'invalid_value', 'max_tokens');
    await chat({ max_completion_tokens: 2 }, 400, 'invalid_value', 'max_tokens');
    await chat({ temperature: -1 }, 400, 'invalid_value', 'temperature');
    await chat({ n: 2 }, 400, 'invalid_value', 'n');
    await chat({ top_logprobs: 21 }, 400, 'invalid_value', 'top_logprobs');
    await chat({ logprobs: false }, 400, 'invalid_value', 'top_logprobs');
    await chat({ tools: [{ type: 'function' }] }, 400, 'invalid_value', 'tools');
    await chat({ stop: ['a', 'b', 'c', 'd', 'e'] }, 400, 'invalid_value', 'stop');
    await chat({ response_format: { type: 'json_object' } }, 400, 'invalid_value', 'response_format.type');
  });

  test('models and messages that are not there', async () => {
    for (const model of ['gpt-4', 'mini-llava@nothing', 'mini-llava@edit_0', '@', '__proto__', 'mini-llava@'])
      await chat({ model }, 404, 'model_not_found', 'model');
    await chat({ messages: [] }, 400, 'invalid_value', 'messages');
    await chat({ messages: [{ role: 'user', content: '' }] }, 400, 'invalid_prompt', 'messages');
    const user = { role: 'user', content: 'x' };
    for (const [field, value] of [
      ['refusal', 'no'],
      ['tool_calls', [{}]],
      ['audio', { id: 'x' }],
      ['function_call', {}],
      ['annotations', [{}]],
      ['parsed', 1],
    ])
      await chat(
        { messages: [user, { role: 'assistant', content: 'x', [field as string]: value }] },
        400,
        'invalid_value',
        `messages.1.${field}`,
      );
    for (const role of ['user', 'system'])
      await chat({ messages: [{ role, content: null }] }, 400, 'invalid_value', 'messages.0.content');
    await chat({ messages: [{ role: 'nobody', content: 'x' }] }, 400, 'invalid_value', 'messages.0.role');
    await chat({ messages: [{ role: 'user', content: 'x'.repeat(2001) }] }, 400, 'prompt_too_long', 'messages');
    await chat({ messages: [{ role: 'user', content: 'a '.repeat(999) }] }, 400, 'invalid_prompt', 'messages');
    const many = Array.from({ length: 17 }, () => messages('x', valid.picture!.body.image as string)[0]!);
    await chat({ messages: many }, 400, 'too_many_images', 'messages.16.content.0.image_url.url');
    const typed = [{ role: 'system', content: 'x' }, ...messages('is <image> a word?')];
    await chat({ messages: typed }, 400, 'invalid_prompt', 'messages');
  });

  test('pictures that are none, or from elsewhere', async () => {
    const param = 'messages.0.content.0.image_url.url';
    for (const [url, code] of [
      ['data:image/png;base64,!!!!', 'invalid_image'],
      ['data:image/png;base64,AAAA', 'invalid_image'],
      ['data:image/png,plain', 'invalid_image'],
      ['/etc/passwd', 'invalid_image'],
      ['/v1/edits/../../etc/passwd', 'invalid_image'],
      ['/v1/datasets/vqa_test/pictures/100000', 'invalid_image'],
      ['file:///etc/passwd', 'image_url_refused'],
      ['http://169.254.169.254/latest/meta-data', 'image_url_refused'],
      ['https://example.org/cat.png', 'image_url_refused'],
    ])
      await chat({ messages: messages('x', url) }, 400, code!, param);
    const stream = await ask('POST', '/v1/chat/completions', {
      ...valid.chat!.body,
      stream: true,
      messages: messages('x', 'data:,'),
    });
    expect([stream.status, isErrorBody(stream.json)]).toEqual([400, true]);
  });
});

test('edits, sets, attributions and comparisons that cannot be', async () => {
  const edits = (change: Record<string, unknown>) => ({ ...valid.edit!.body, ...change });
  await refused('POST', '/v1/edits', edits({ model: 'nobody' }), 404, 'model_not_found', 'model');
  await refused('POST', '/v1/edits', edits({ editor: 'nobody' }), 400, 'editor_not_found', 'editor');
  await refused('POST', '/v1/edits', edits({}), 409, 'edits_do_not_combine', 'editor');
  await refused('POST', '/v1/edits', edits({ editor: 'mend', set: 'mend' }), 400, 'weights_not_found', 'weights');
  await refused('POST', '/v1/edits', edits({ editor: 'vead', weights: 'other' }), 400, 'weights_not_found', 'weights');
  await refused('POST', '/v1/edits', edits({ editor: 'vead', target: '  ' }), 400, 'invalid_prompt', 'prompt');
  for (const set of ['', 'A', 'edit_1', '../x', 'a'.repeat(64), 'a b'])
    await refused('POST', '/v1/edits', edits({ set }), 400, 'invalid_value', 'set');
  const broken = `data:application/octet-stream;base64,${Buffer.from('{}').toString('base64')}`;
  await refused('POST', '/v1/edits', { model: 'mini-llava', file: broken }, 400, 'invalid_edit_file', 'file');
  await refused('POST', '/v1/edits', { model: 'mini-llava', file: broken, editor: 'vead' }, 400, 'unknown_field', 'editor');
  // One more fits into the set, and then none.
  expect((await ask('POST', '/v1/edits', edits({ editor: 'vead' }))).status).toBe(201);
  await refused('POST', '/v1/edits', edits({ editor: 'vead' }), 409, 'set_full', 'set');
  for (const [method, path, code] of [
    ['GET', '/v1/edits/edit_0', 'edit_not_found'],
    ['DELETE', '/v1/edits/..%2f..%2fetc', 'edit_not_found'],
    ['GET', '/v1/edits/edit_0/picture', 'edit_not_found'],
    ['GET', '/v1/sets/nothing', 'set_not_found'],
    ['GET', '/v1/models/nothing', 'model_not_found'],
    ['GET', '/v1/datasets/nothing/records', 'dataset_not_found'],
    ['GET', '/v1/datasets/vqa_test/records/99999', 'record_not_found'],
    ['GET', '/v1/datasets/vqa_test/pictures/NaN', 'picture_not_found'],
    ['GET', '/v1/pictures/..%2fx', 'picture_not_found'],
    ['GET', '/v1/runs/nothing', 'run_not_found'],
    ['GET', '/v1/runs/nothing/events', 'run_not_found'],
    ['GET', '/v1/jobs/nothing', 'job_not_found'],
    ['GET', '/v1/jobs/nothing/events', 'job_not_found'],
    ['GET', '/v1/nothing', 'not_found'],
    ['GET', '/%00', 'not_found'],
    ['GET', '/', 'not_found'],
  ])
    await refused(method!, path!, undefined, 404, code!);
  await refused('POST', '/v1/sets/mini-llava@default/revert', { to: 999 }, 404, 'revision_not_found', 'to');
  for (const [path, param] of [
    ['/v1/edits?limit=0', 'limit'],
    ['/v1/edits?limit=1e9', 'limit'],
    ['/v1/edits?offset=-1', 'offset'],
    ['/v1/edits?enabled=perhaps', 'enabled'],
    ['/v1/edits?surprise=1', 'surprise'],
    ['/v1/datasets/vqa_test/records?sort=__proto__', 'sort'],
  ])
    await refused('GET', path!, undefined, 400, param === 'surprise' ? 'unknown_field' : 'invalid_value', param);
  const why = (change: Record<string, unknown>) => ({ ...valid.attribution!.body, ...change });
  await refused('POST', '/v1/attributions', why({ layers: [7] }), 400, 'invalid_value', 'layers');
  await refused('POST', '/v1/attributions', why({ key: 'two words here' }), 400, 'invalid_value', 'key');
  await refused('POST', '/v1/attributions', why({ key: 9999 }), 400, 'invalid_value', 'key');
  await refused('POST', '/v1/attributions', why({ answer: [9999] }), 400, 'invalid_value', 'answer.0');
  await refused('POST', '/v1/attributions', why({ position: 2 }), 400, 'invalid_value', 'position');
  await refused('POST', '/v1/attributions', why({ parts: ['visual'], image: undefined }), 400, 'invalid_value', 'image');
  await refused(
    'POST',
    '/v1/attributions',
    why({ answer: new Array(600).fill(3), position: 600 }),
    400,
    'prompt_too_long',
    'answer',
  );
  const query = (valid.comparison!.body.queries as object[])[0];
  const compared = (change: Record<string, unknown>) => ({ ...valid.comparison!.body, ...change });
  await refused('POST', '/v1/comparisons', compared({ queries: [query, query, query, query] }), 400, 'invalid_value', 'queries');
  for (const format of ['svg', 'png', 'figure'])
    await refused(
      'POST',
      '/v1/comparisons',
      compared({ queries: [{ ...query, image: null }], format }),
      400,
      'invalid_value',
      'format',
    );
  await refused(
    'POST',
    '/v1/comparisons',
    compared({ queries: [query, { ...query, image: 'data:,' }] }),
    400,
    'invalid_image',
    'queries.1.image',
  );
  await isUp();
}, 60_000);

test('a body of very many values holds nobody up', async () => {
  const large = await startHarness({ limits: { bodyBytes: 64e6 } });
  const body = `{${Array.from({ length: 2_000_000 }, (_, i) => `"k${i}":1`).join()}}`;
  const sent = large.ask('POST', '/v1/chat/completions', body);
  let longest = 0;
  for (let at = performance.now(); ; at = performance.now()) {
    const over = await Promise.race([sent.then(() => true), large.ask('GET', '/healthz').then(() => false)]);
    longest = Math.max(longest, performance.now() - at);
    if (over) break;
  }
  expect((await sent).json.error.code).toBe('json_too_large');
  expect(longest).toBeLessThan(1500);
  await large.close();
}, 60_000);

test('drawings of any text are drawn', async () => {
  const texts = ['\u0000\u0001\u001f', '\ud800', '</svg><script>', '&amp;&#0;', '\ufffe\uffff', '🦊 \u202e', 'x'.repeat(300)];
  for (const prompt of texts)
    for (const format of ['svg', 'png']) {
      const query = { ...(valid.comparison!.body.queries as object[])[0], prompt };
      const { status, json } = await ask('POST', '/v1/comparisons', { ...valid.comparison!.body, queries: [query], format });
      expect([prompt, format, status, json?.error?.message]).toEqual([
        prompt,
        format,
        status === 400 ? 400 : 200,
        json?.error?.message,
      ]);
      const why = await ask('POST', '/v1/attributions', { ...valid.attribution!.body, prompt, parts: undefined, format });
      expect([prompt, format, why.status]).toEqual([prompt, format, why.status === 400 ? 400 : 200]);
    }
}, 60_000);

test('a placeholder for the picture at any place of a prompt is no failure of the server', async () => {
  for (const prompt of [
    '<image>',
    'What <image> is this?',
    'What is this? <image>',
    '<image>\n<image>\nTwo?',
    '<s></s><unk>',
    '<ImageHere>',
  ])
    for (const image of [valid.picture!.body.image as string, undefined]) {
      const { status } = await ask('POST', '/v1/chat/completions', { ...valid.chat!.body, messages: messages(prompt, image) });
      expect([prompt, [200, 400].includes(status)]).toEqual([prompt, true]);
      const edit = { ...valid.edit!.body, set: 'placeholders', prompt, image };
      expect([prompt, [201, 400, 409].includes((await ask('POST', '/v1/edits', edit)).status)]).toEqual([prompt, true]);
      const why = { ...valid.attribution!.body, prompt, image, parts: undefined };
      expect([prompt, [200, 400].includes((await ask('POST', '/v1/attributions', why)).status)]).toEqual([prompt, true]);
      const query = { ...(valid.comparison!.body.queries as object[])[0], prompt, image };
      const compared = await ask('POST', '/v1/comparisons', { ...valid.comparison!.body, queries: [query] });
      expect([prompt, [200, 400].includes(compared.status)]).toEqual([prompt, true]);
    }
}, 120_000);

test('methods that a path does not have, and what is no HTTP', async () => {
  for (const [method, path, allow] of [
    ['PUT', '/v1/edits', 'GET'],
    ['GET', '/v1/chat/completions', 'POST'],
    ['DELETE', '/healthz', 'GET'],
  ]) {
    const answer = await ask(method!, path!, method === 'PUT' ? {} : undefined);
    expect([answer.status, answer.json.error.code]).toEqual([405, 'method_not_allowed']);
    expect(answer.headers.get('allow')).toContain(allow);
  }
  const { port } = new URL(harness.server.url);
  const raw = await new Promise<string>((resolve) => {
    const socket = connect(Number(port), '127.0.0.1', () => socket.write('nonsense\r\n\r\n'));
    let text = '';
    socket.on('data', (piece) => {
      text += piece;
    });
    socket.on('close', () => resolve(text));
  });
  expect(raw).toMatch(/^HTTP\/1.1 400/);
  expect(isErrorBody(JSON.parse(raw.split('\r\n\r\n')[1]!))).toBe(true);
  await isUp();
});

test('the key, the name and the origin are checked; health needs no key', async () => {
  for (const path of ['/v1/models', '/metrics', '/openapi.json', '/docs', '/v1/edits']) {
    for (const authorization of [undefined, 'Bearer wrong-key-altogether', `Basic ${key}`, `Bearer ${key}x`]) {
      const answer = await harness.ask('GET', path, undefined, authorization === undefined ? {} : { authorization });
      expect([path, answer.status, isErrorBody(answer.json)]).toEqual([path, 401, true]);
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer realm="visedit"/);
    }
    expect((await ask('GET', path)).status).toBe(200);
  }
  for (const path of ['/healthz', '/readyz']) expect((await harness.ask('GET', path)).status).toBe(200);
  const named = (host: string) =>
    new Promise<string>((resolve) => {
      const { port } = new URL(harness.server.url);
      const socket = connect(Number(port), '127.0.0.1', () =>
        socket.end(`GET /v1/models HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${key}\r\nConnection: close\r\n\r\n`),
      );
      let text = '';
      socket.on('data', (piece) => {
        text += piece;
      });
      socket.on('close', () => resolve(text.slice(9, 12)));
    });
  for (const host of ['localhost', 'localhost:1', '127.0.0.1:80', '[::1]:80', 'models.example.org', 'MODELS.example.org:443'])
    expect([host, await named(host)]).toEqual([host, '200']);
  for (const host of ['evil.example.org', 'localhost.evil.org', 'models.example.org.evil.org'])
    expect([host, await named(host)]).toEqual([host, '403']);
  expect(await named('x@localhost')).toBe('400');
  const origin = async (from: string) => (await ask('GET', '/v1/models', undefined, { origin: from })).status;
  for (const from of ['http://evil.example.org', 'null', 'http://127.0.0.1:1', 'file://'])
    expect([from, await origin(from)]).toEqual([from, 403]);
  for (const from of ['http://studio.example.org', harness.server.url]) expect([from, await origin(from)]).toEqual([from, 200]);
  // Pictures, frames and links of other sites say no origin, but that they are of another site.
  const from = async (site: string, path: string, more: Record<string, string> = {}) => {
    // `fetch` has these headers of its own.
    const request = get(`${harness.server.url}${path}`, { headers: { ...headers, 'sec-fetch-site': site, ...more } });
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    response.resume();
    expect(response.headers['cross-origin-resource-policy']).toBe('same-origin');
    expect(response.headers['content-security-policy']).toContain("frame-ancestors 'none'");
    return response.statusCode;
  };
  const picture = `/v1/edits/${editId}/picture`;
  const link = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };
  for (const site of ['same-origin', 'none']) expect(await from(site, picture)).toBe(200);
  for (const site of ['cross-site', 'same-site'])
    for (const more of [{ 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' }, {}, link])
      expect(await from(site, picture, more)).toBe(403);
  expect(await from('cross-site', '/healthz', link)).toBe(200);
  expect(await from('cross-site', '/healthz', { ...link, 'sec-fetch-dest': 'iframe' })).toBe(403);
  expect(await from('cross-site', '/v1/models', { origin: 'http://studio.example.org' })).toBe(200);
  const preflight = await harness.ask('OPTIONS', '/v1/chat/completions', undefined, {
    origin: 'http://studio.example.org',
    'access-control-request-method': 'POST',
  });
  expect([preflight.status, preflight.headers.get('access-control-allow-origin')]).toEqual([204, 'http://studio.example.org']);
});

test('nothing secret was logged', () => {
  const all = log.join('');
  expect(log.length).toBeGreaterThan(100);
  for (const secret of [key, 'top left', 'base64', 'pizza', editId, 'wrong-key']) expect(all).not.toContain(secret);
});
