/** The story with OpenAI's own client: a wrong answer, its correction, both models side by side, why, and back again. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tools } from '../../src/attribution/tools/index.ts';
import { dataUrl, type Harness, messages, requestOf, startHarness } from './harness.ts';

let harness: Harness;
let client: OpenAI;
let edit: { image: string; prompt: string; target: string };
const key = 'a-key-of-the-story';

beforeAll(async () => {
  harness = await startHarness({ key });
  client = new OpenAI({ baseURL: `${harness.server.url}/v1`, apiKey: key, maxRetries: 0 });
}, 60_000);
afterAll(() => harness.close());

const headers = { authorization: `Bearer ${key}` };
const ask = (method: string, path: string, body?: unknown) => harness.ask(method, path, body, headers);
const say = async (model: string, prompt: string, image?: string): Promise<string> => {
  const answer = await client.chat.completions.create({ model, messages: messages(prompt, image), max_tokens: 16 });
  return answer.choices[0]!.message.content!;
};

test('one script asks the edited and the unedited model and gets different answers', async () => {
  let record = harness.records[0]!;
  for (const one of harness.records) {
    const { image, prompt, target } = requestOf(one);
    if (one.edit === 'counterfactual' && (await say('mini-llava', prompt, image)) !== target) {
      record = one;
      break;
    }
  }
  edit = requestOf(record);
  const made = await ask('POST', '/v1/edits', { model: 'mini-llava', set: 'story', editor: 'vead', ...edit, note: 'first' });
  expect(made.status).toBe(201);
  expect(made.json).toMatchObject({ object: 'edit', set: 'story', editor: 'vead', weights: 'vqa', enabled: true, position: 0 });
  expect(made.json).toMatchObject({ took: true, after: { text: edit.target }, warnings: [] });
  // A rephrasing is left out where no template fits the prompt.
  const kinds = made.json.card.map(({ kind }: { kind: string }) => kind).filter((kind: string) => kind !== 'textGenerality');
  expect(kinds).toEqual(['reliability', 'modalGenerality', 'textLocality', 'modalLocality', 'sameImage', 'sameQuestion']);
  expect((await ask('GET', `/v1/edits/${made.json.id}`)).json).toEqual(made.json);

  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  expect(names).toEqual(['mini-llava', 'mini-llava@story']);
  expect((await client.models.retrieve('mini-llava@story')).id).toBe('mini-llava@story');

  const [before, after] = [
    await say('mini-llava', edit.prompt, edit.image),
    await say('mini-llava@story', edit.prompt, edit.image),
  ];
  expect(after).toBe(edit.target);
  expect(before).not.toBe(after);
  // Under the one edit alone, named by its id.
  expect(await say(`mini-llava@${made.json.id}`, edit.prompt, edit.image)).toBe(edit.target);
});

test('a stream says the same as a plain answer, token by token, with probabilities and usage', async () => {
  const request = {
    model: 'mini-llava@story',
    messages: messages('Describe the picture.', edit.image),
    logprobs: true,
    top_logprobs: 3,
  };
  const whole = await client.chat.completions.create(request);
  const stream = await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } });
  let text = '';
  const logprobs: { token: string; logprob: number; bytes: number[] }[] = [];
  let usage: OpenAI.CompletionUsage | null | undefined;
  let finish: string | null | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    logprobs.push(...((chunk.choices[0]?.logprobs?.content ?? []) as typeof logprobs));
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  const choice = whole.choices[0]!;
  expect(text).toBe(choice.message.content);
  expect(text.split(' ').length).toBeGreaterThan(3);
  expect(logprobs).toEqual(choice.logprobs!.content);
  expect(
    logprobs
      .map(({ token }) => token)
      .join('')
      .trim(),
  ).toBe(text);
  expect(
    Buffer.from(logprobs.flatMap(({ bytes }) => bytes))
      .toString()
      .trim(),
  ).toBe(text);
  for (const { logprob, top_logprobs: top } of choice.logprobs!.content!) {
    expect(top).toHaveLength(3);
    expect(top[0]!.logprob).toBeCloseTo(logprob, 10);
    expect(top[1]!.logprob).toBeLessThanOrEqual(logprob);
  }
  expect(finish).toBe('stop');
  expect(usage).toEqual(whole.usage);
  expect(whole.usage!.completion_tokens).toBe(logprobs.length);
});

test('an answer goes back into the messages as it came, in the form of each client', async () => {
  const ask = { role: 'user' as const, content: 'What is one plus five?' };
  const first = (await client.chat.completions.create({ model: 'mini-llava', messages: [ask], max_tokens: 4 })).choices[0]!
    .message;
  const parsed = (
    await client.chat.completions.stream({ model: 'mini-llava', messages: [ask], max_tokens: 4 }).finalChatCompletion()
  ).choices[0]!.message;
  const python = { ...first, annotations: null, audio: null, function_call: null, tool_calls: null };
  const others = { ...first, name: null, annotations: [], tool_calls: [], reasoning_content: null };
  const second = async (messages: unknown[]) =>
    (await client.chat.completions.create({ model: 'mini-llava', messages: messages as (typeof ask)[], max_tokens: 4 }))
      .choices[0]!.message.content;
  const texts = [];
  for (const answer of [first, parsed, python, others]) texts.push(await second([ask, answer, ask]));
  expect(new Set(texts).size).toBe(1);
  // An answer without text is one, too; so is a request whose fields are all null.
  expect(typeof (await second([ask, { role: 'assistant', content: null, tool_calls: null }, ask]))).toBe('string');
  const fields = [
    'audio',
    'functions',
    'function_call',
    'prediction',
    'reasoning_effort',
    'verbosity',
    'web_search_options',
    'tools',
    'n',
  ];
  const nothing = Object.fromEntries(fields.map((field) => [field, null]));
  expect(await second([ask])).toBe(first.content);
  expect(
    (await harness.ask('POST', '/v1/chat/completions', { model: 'mini-llava', messages: [ask], ...nothing }, headers)).status,
  ).toBe(200);
});

test('words that the model has no token for are pointed out, and only those', async () => {
  const body = (content: string) => ({ model: 'mini-llava', messages: [{ role: 'user', content }], max_tokens: 2 });
  const plain = await ask('POST', '/v1/chat/completions', body('What is two plus three?'));
  expect(plain.json).not.toHaveProperty('warnings');
  const strange = await ask('POST', '/v1/chat/completions', body('What is a PIZZA?'));
  expect(strange.json.warnings).toEqual([expect.stringMatching(/the prompt has words .* no token for: "PIZZA"/)]);
  const streamed = await ask('POST', '/v1/chat/completions', { ...body('What is a PIZZA?'), stream: true });
  expect(streamed.text).toContain('"warnings":["the prompt has words');
  const why = await ask('POST', '/v1/attributions', { model: 'mini-llava', prompt: 'What is a PIZZA?' });
  expect(why.json.warnings).toEqual(strange.json.warnings);
});

test('length, stop words and seeds do what they say', async () => {
  const request = { model: 'mini-llava', messages: messages('Describe the picture.', edit.image) };
  const whole = (await client.chat.completions.create(request)).choices[0]!.message.content!;
  const short = (await client.chat.completions.create({ ...request, max_completion_tokens: 2 })).choices[0]!;
  expect(short.finish_reason).toBe('length');
  expect(whole.startsWith(short.message.content!)).toBe(true);
  const word = whole.split(' ')[2]!;
  const stopped = (await client.chat.completions.create({ ...request, stop: [word] })).choices[0]!;
  expect(stopped).toMatchObject({ finish_reason: 'stop', message: { content: whole.slice(0, whole.indexOf(word)).trimEnd() } });
  const sampled = async (seed: number) =>
    (await client.chat.completions.create({ ...request, temperature: 2, seed })).choices[0]!.message.content;
  const drawn = [await sampled(1), await sampled(1), await sampled(2), await sampled(3)];
  expect(drawn[0]).toBe(drawn[1]);
  expect(new Set(drawn).size).toBeGreaterThan(1);
});

describe('why', () => {
  test('a token of an answer, before and after the edit', async () => {
    const answer = await client.chat.completions.create({
      model: 'mini-llava@story',
      messages: messages('Describe the picture.', edit.image),
      logprobs: true,
    });
    const ids = answer.choices[0]!.logprobs!.content as unknown as { token_id: number; logprob: number }[];
    const position = 2;
    const { status, json } = await ask('POST', '/v1/attributions', {
      model: 'mini-llava@story',
      prompt: 'Describe the picture.',
      image: edit.image,
      answer: ids.map(({ token_id }) => token_id),
      position,
      before: true,
      draws: 2,
      top: 4,
    });
    expect(status).toBe(200);
    expect(json.key).toMatchObject({ id: ids[position]!.token_id, predicted: true });
    expect(json.key.probability).toBeCloseTo(Math.exp(ids[position]!.logprob), 4);
    expect(json.before.key.id).toBe(json.key.id);
    for (const view of [json, json.before]) {
      expect(view.modules.contribution.attn).toHaveLength(7);
      expect(view.lens).toHaveLength(7);
      expect(view.lens[6].tokens).toHaveLength(4);
      expect(view.lens[6].key_probability).toBeCloseTo(view.key.probability, 6);
      expect(view.visual.grid).toEqual([6, 6]);
      expect(view.visual.layers.map(({ patches }: { patches: number[] }) => patches.length)).toEqual(new Array(7).fill(36));
    }
    // The edit acts after layer 2 on visual tokens: what is below is the same, what is above is not.
    expect(json.visual.layers[1].patches).toEqual(json.before.visual.layers[1].patches);
    expect(json.visual.layers[5].patches).not.toEqual(json.before.visual.layers[5].patches);
  });

  test('every tool explains the answer of the edited model, as numbers and as a drawing', async () => {
    const body = { model: 'mini-llava@story', prompt: edit.prompt, image: edit.image };
    for (const [tool, options, own] of [
      ['lens', { positions: 'picture', top: 2 }, {}],
      ['attention', { layers: '5-6' }, {}],
      ['heads', {}, {}],
      ['words', {}, {}],
      ['trace', { parts: 'groups', modules: 'out', draws: 1 }, {}],
      ['patch', { parts: 'groups', modules: 'out' }, { against_image: edit.image }],
      ['knockout', { layers: 'all' }, {}],
      ['steer', { toward: 'What is at the top left?', away: 'How many are there?', strengths: '0', maxNewTokens: 2 }, {}],
      ['check', { methods: 'attention', hide: 'grey', steps: 2 }, {}],
    ] as const) {
      const { status, json } = await ask('POST', '/v1/explanations', { ...body, tool, options, ...own });
      expect({ tool, status, json: status === 200 ? '' : json }).toEqual({ tool, status: 200, json: '' });
      expect(json).toMatchObject({ object: 'explanation', tool });
      expect(json.table.rows.length).toBeGreaterThan(0);
    }
    const drawing = { ...body, tool: 'knockout', options: { window: 2 } };
    const svg = await harness.ask('POST', '/v1/explanations', drawing, { ...headers, accept: 'image/svg+xml' });
    expect(svg.text).toContain('picture → last');
    const wrong = await ask('POST', '/v1/explanations', { ...body, tool: 'lens', options: { top: 900 } });
    expect(wrong).toMatchObject({ status: 400, json: { error: { param: 'options.top' } } });
    // Tokens that the model does not have would be read as noughts.
    const strange = await ask('POST', '/v1/explanations', { ...body, tool: 'lens', answer: [9999] });
    expect(strange).toMatchObject({ status: 400, json: { error: { param: 'answer.0' } } });
    // Every tool that there is stands in the list, with a schema of its options.
    const { data: listed } = (await ask('GET', '/v1/tools')).json;
    expect(listed.map(({ id }: { id: string }) => id)).toEqual(tools.map(({ id }) => id));
    expect(listed.find(({ id }: { id: string }) => id === 'steer').options.required).toEqual(['toward', 'away']);
    const none = await ask('POST', '/v1/explanations', { ...body, tool: 'lenses' });
    expect(none).toMatchObject({ status: 400, json: { error: { param: 'tool' } } });
  });

  test('where to edit, from the records of a data set', async () => {
    const [{ id: dataset }] = (await ask('GET', '/v1/datasets')).json.data;
    const { status, json } = await ask('POST', '/v1/plans', { model: 'mini-llava', dataset, records: 4 });
    expect({ status, json: status === 200 ? '' : json }).toEqual({ status: 200, json: '' });
    expect(json).toMatchObject({ object: 'plan', model: 'mini-llava' });
    expect(json.evidence.carried).toHaveLength(7);
    const none = await ask('POST', '/v1/plans', { model: 'mini-llava@story', dataset });
    expect(none).toMatchObject({ status: 404, json: { error: { param: 'model' } } });
  });

  test('as a drawing, and only what is asked for', async () => {
    const body = {
      model: 'mini-llava@story',
      prompt: edit.prompt,
      image: edit.image,
      draws: 1,
      layers: [5, 3],
      parts: ['visual', 'modules'],
    };
    const plain = await ask('POST', '/v1/attributions', body);
    expect(plain.json.layers).toEqual([3, 5]);
    expect(plain.json.lens).toBeUndefined();
    const svg = await harness.ask('POST', '/v1/attributions', body, { ...headers, accept: 'image/svg+xml' });
    expect(svg.headers.get('content-type')).toBe('image/svg+xml');
    expect(svg.text).toMatch(/^<svg /);
    expect(svg.text).toContain('Layer 5');
    const figure = await ask('POST', '/v1/attributions', { ...body, format: 'figure' });
    expect(figure.json.panels.map(({ kind }: { kind: string }) => kind)).toEqual(['module-bars', 'heat-maps']);
  });
});

test('five kinds of query side by side', async () => {
  const record = harness.records.find(({ request }) => request.prompt === edit.prompt && request.target === edit.target)!;
  const queries = Object.entries(record.queries).map(([kind, { image, prompt, target }]) => ({
    kind,
    prompt,
    target,
    ...(image === null ? {} : { image: dataUrl(image) }),
  }));
  const { status, json } = await ask('POST', '/v1/comparisons', { before: 'mini-llava', after: 'mini-llava@story', queries });
  expect(status).toBe(200);
  const by = Object.fromEntries(json.queries.map((one: { kind: string }) => [one.kind, one]));
  expect(by.reliability).toMatchObject({ after: { text: edit.target }, passed: true, same: false, token_accuracy: 1 });
  expect(by.reliability.after.target_probability).toBeGreaterThan(by.reliability.before.target_probability);
  // Text-only inputs are promised the same bits.
  expect(by.textLocality).toMatchObject({ same: true, passed: true, token_agreement: 1, token_accuracy: 1 });
  expect(by.textLocality.after).toEqual(by.textLocality.before);
});

test('switched off, on, undone, redone: each change is a revision; deleting is for good', async () => {
  const [{ id }] = (await ask('GET', '/v1/edits?set=story')).json.data;
  const answer = () => say('mini-llava@story', edit.prompt, edit.image);
  const plain = await say('mini-llava', edit.prompt, edit.image);
  expect((await ask('PATCH', `/v1/edits/${id}`, { enabled: false })).json.enabled).toBe(false);
  expect(await answer()).toBe(plain);
  const undone = await ask('POST', '/v1/sets/mini-llava@story/revert', {});
  expect(undone.json).toMatchObject({ revision: 3, edits: [{ id, enabled: true }] });
  expect(await answer()).toBe(edit.target);
  expect((await ask('POST', '/v1/sets/mini-llava@story/revert', {})).json.edits).toEqual([]);
  expect(await answer()).toBe(plain);
  const none = await ask('POST', '/v1/sets/mini-llava@story/revert', {});
  expect([none.status, none.json.error.code]).toEqual([409, 'nothing_to_revert']);
  expect((await ask('POST', '/v1/sets/mini-llava@story/revert', { to: 1 })).json.edits).toEqual([{ id, enabled: true }]);
  expect(await answer()).toBe(edit.target);

  const other = await ask('POST', '/v1/edits', { model: 'mini-llava', set: 'story', editor: 'ft-l', ...edit });
  expect([other.status, other.json.error.code]).toEqual([409, 'edits_do_not_combine']);

  const picture = await fetch(`${harness.server.url}/v1/edits/${id}/picture`, { headers });
  expect(picture.headers.get('content-type')).toBe('image/png');
  const file = await fetch(`${harness.server.url}/v1/edits/${id}/file`, { headers });
  const bytes = Buffer.from(await file.arrayBuffer());
  const taken = await ask('POST', '/v1/edits', {
    model: 'mini-llava',
    set: 'taken',
    file: `data:application/octet-stream;base64,${bytes.toString('base64')}`,
  });
  expect(taken.json).toMatchObject({ prompt: edit.prompt, target: edit.target, editor: 'vead', picture: null });
  expect(await say('mini-llava@taken', edit.prompt, edit.image)).toBe(edit.target);

  expect((await ask('DELETE', `/v1/edits/${id}`)).json).toEqual({ id, object: 'edit', deleted: true });
  expect((await ask('GET', `/v1/edits/${id}`)).status).toBe(404);
  expect((await ask('POST', '/v1/sets/mini-llava@story/revert', { to: 1 })).json.edits).toEqual([]);
  expect((await ask('DELETE', '/v1/sets/mini-llava@taken')).status).toBe(200);
  expect((await ask('GET', '/v1/edits')).json.total).toBe(0);
});

test('a correction that contradicts one of its set, or repeats it, is told of before it is made', async () => {
  const claim = { model: 'mini-llava', set: 'claims', ...edit };
  const found = async (more: object = {}) => (await ask('POST', '/v1/conflicts', { ...claim, ...more })).json.data;
  expect(await found()).toEqual([]);
  const { json: made } = await ask('POST', '/v1/edits', { ...claim, editor: 'vead', probes: 'none' });
  expect(await found()).toMatchObject([{ kind: 'repeats', edit: made.id, target: edit.target }]);
  expect(await found({ target: 'another' })).toMatchObject([{ kind: 'contradicts', edit: made.id, target: edit.target }]);
  expect(await found({ prompt: 'Is this another question?' })).toEqual([]);
  await ask('PATCH', `/v1/edits/${made.id}`, { enabled: false });
  expect(await found({ target: 'another' })).toEqual([]);
  await ask('DELETE', '/v1/sets/mini-llava@claims');
});

test('edits that are deleted while they are used are there to the end, or not there at all', async () => {
  const question = { messages: messages(edit.prompt, edit.image), max_tokens: 2 };
  const made = await Promise.all(
    Array.from({ length: 4 }, () =>
      ask('POST', '/v1/edits', { model: 'mini-llava', set: 'used', editor: 'vead', probes: 'none', ...edit }),
    ),
  );
  const ids = made.map(({ json }) => json.id as string);
  const asked = ['mini-llava@used', ...ids.map((id) => `mini-llava@${id}`)].flatMap((model) => [
    ...[1, 2].map(() => ask('POST', '/v1/chat/completions', { model, ...question })),
    ask('POST', '/v1/attributions', { model, prompt: edit.prompt, image: edit.image, draws: 1, parts: ['modules'] }),
    ask('POST', '/v1/comparisons', { before: 'mini-llava', after: model, queries: [{ kind: 'own', prompt: edit.prompt }] }),
    ask('POST', '/v1/edits', { model: 'mini-llava', set: 'used', editor: 'vead', probes: 'none', ...edit }),
  ]);
  const deleted = ids.map((id) => ask('DELETE', `/v1/edits/${id}`));
  for (const { status, json } of await Promise.all([...asked, ...deleted])) {
    expect([200, 201, 404, 429]).toContain(status);
    if (status === 404) expect(json.error.code).toMatch(/^(model|edit|set)_not_found$/);
    expect(JSON.stringify(json.error ?? {})).not.toContain(harness.folder);
  }
  expect((await ask('DELETE', '/v1/sets/mini-llava@used')).status).toBe(200);
  expect((await ask('GET', '/v1/edits')).json.total).toBe(0);
}, 60_000);

test('long work as a job: watched to its end, or cancelled', async () => {
  const body = { model: 'mini-llava', prompt: edit.prompt, image: edit.image, draws: 1, background: true };
  const started = await ask('POST', '/v1/attributions', body);
  expect([started.status, started.json.object]).toEqual([202, 'job']);
  const events = await ask('GET', `/v1/jobs/${started.json.id}/events`);
  const told = events.text.split('\n\n').filter((event) => event.startsWith('event:'));
  expect(told.at(-1)).toMatch(/^event: end\n/);
  const last = JSON.parse(told.at(-1)!.split('\ndata: ')[1]!);
  expect(last).toMatchObject({ state: 'done', progress: { done: 8, total: 8 }, result: { object: 'attribution' } });
  expect((await ask('GET', `/v1/jobs/${started.json.id}`)).json.result).toEqual(last.result);

  const long = await ask('POST', '/v1/attributions', { ...body, draws: 100 });
  expect((await ask('DELETE', `/v1/jobs/${long.json.id}`)).json.state).toBe('cancelled');
  expect((await ask('GET', `/v1/jobs/${long.json.id}`)).json).toMatchObject({ state: 'cancelled' });
  // Its turn is free again.
  await expect.poll(() => harness.server.services.queue.running).toBe(0);
});

test('pictures that are kept are named by their path, and suggestions complete an edit', async () => {
  const kept = await ask('POST', '/v1/pictures', { image: edit.image });
  expect(kept.status).toBe(201);
  expect(await say('mini-llava', edit.prompt, kept.json.url)).toBe(await say('mini-llava', edit.prompt, edit.image));
  const data = (
    await ask('POST', '/v1/suggestions', {
      prompt: 'What is at the top left? The answer is:',
      image: kept.json.url,
      target: 'pizza',
    })
  ).json.data;
  expect(data.map(({ kind }: { kind: string }) => kind)).toEqual([
    'reliability',
    'textGenerality',
    'modalGenerality',
    'textLocality',
    'modalLocality',
  ]);
  expect(data[1].prompt).toBe('What is in the top left cell? The answer is:');
  expect(data[4].image).toMatch(/^\/v1\/datasets\/vqa_test\/pictures\/\d+$/);
  const { json } = await ask('POST', '/v1/comparisons', { before: 'mini-llava', after: 'mini-llava', queries: [data[4]] });
  expect(json.queries[0]).toMatchObject({ same: true, passed: true });
});

test('the description names every route and whatever they answered, and the metrics count what was done', async () => {
  const { json } = await ask('GET', '/openapi.json');
  const { paths } = json as {
    paths: Record<string, Record<string, { summary?: string; responses: Record<string, { content?: object }> }>>;
  };
  const routes = harness.server.app.routes.filter(({ method, path }) => method !== 'ALL' && path !== '*' && path !== '/*');
  for (const { method, path } of routes) {
    const operation = paths[path.replace(/:(\w+)/g, '{$1}')]?.[method.toLowerCase()];
    expect([method, path, operation?.summary]).toEqual([method, path, expect.any(String)]);
  }
  const described = Object.keys(paths).map((path) => [path, new RegExp(`^${path.replace(/\{\w+\}/g, '[^/]+')}$`)] as const);
  for (const { method, path, status, type } of harness.asked) {
    const [template] = described.find(([, fits]) => fits.test(path.split('?')[0]!))!;
    const { responses } = paths[template]![method.toLowerCase()]!;
    const types = Object.keys((responses[status] ?? responses.default)!.content!);
    expect([method, template, status, types]).toEqual([method, template, status, expect.arrayContaining([type])]);
  }
  const { text } = await ask('GET', '/metrics');
  expect(text).toMatch(/visedit_http_requests_total\{method="POST",route="\/v1\/chat\/completions",status="200"\} [1-9]/);
  expect(text).toMatch(/visedit_tokens_total\{model="mini-llava",kind="completion"\} [1-9]/);
  expect((await ask('GET', '/docs')).text).toContain('/v1/attributions');
});
