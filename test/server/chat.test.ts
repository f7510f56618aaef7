/** Conversations over HTTP: a folder with a chat template, and one without. */
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/files/package-root.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import type { Asked } from '../../src/input/segments.ts';
import { unedited } from '../../src/models/answer.ts';
import { conversation } from '../../src/models/chat.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { temporaryFolder } from '../tiny-world.ts';
import { dataUrl, type Harness, messages, requestOf, startHarness } from './harness.ts';

const templated = join(temporaryFolder(), 'templated');
const template =
  "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% for c in m.content %}{{ '<image>\n' if c.type == 'image' else c.text }}{% endfor %}{{ ' | ' }}{% endfor %}{% if messages[0].role == 'assistant' %}{{ raise_exception('the user begins') }}{% endif %}The answer is:";
let harness: Harness;
let vlm: Vlm;

beforeAll(async () => {
  cpSync(join(packageRoot, 'models', 'mini-llava'), templated, { recursive: true });
  writeFileSync(join(templated, 'chat_template.jinja'), template);
  harness = await startHarness({ models: ['mini-llava', templated] });
  vlm = loadModel(templated, { threads: 1 });
});
afterAll(() => harness?.close());

const say = async (asked: Asked, max = 6) => (await unedited(vlm).generate([asked], { maxNewTokens: max }))[0]!.text;
const chat = (model: string, conversed: unknown[]) =>
  harness.ask('POST', '/v1/chat/completions', { model, messages: conversed, max_tokens: 6 });

test("the folder's template writes a question; without one it is asked as it stands", async () => {
  const { image, prompt } = requestOf(harness.records[0]!);
  const picture = await decodeImage(harness.records[0]!.request.image);
  const bare = await chat('mini-llava', messages(prompt, image));
  expect(bare.json.choices[0].message.content).toBe(await say({ prompt, image: picture }));
  const question = prompt.replace(' The answer is:', '');
  const { json } = await chat('templated', messages(question, image));
  const asked = conversation(vlm, [{ role: 'user', content: [{ picture }, { text: question }] }]);
  expect(json.choices[0].message.content).toBe(await say(asked));
  expect(json.usage.prompt_tokens).toBe(vlm.layout({ prompt: `${question} | The answer is:`, image: picture }).ids.length);
});

test('pictures and roles in any turn', async () => {
  const [one, two] = [harness.records[0]!.request.image, harness.records[1]!.request.image];
  const turns = [
    { role: 'developer', content: 'Short.' },
    ...messages('What is this?', dataUrl(one)),
    { role: 'assistant', content: 'cat' },
    ...messages('And here?', dataUrl(two)),
  ];
  for (const model of ['templated', 'mini-llava']) {
    const { status, json } = await chat(model, turns);
    expect(status).toBe(200);
    expect(json.usage.prompt_tokens).toBeGreaterThan(2 * vlm.architecture.fixed!.count);
  }
});

test('edits and attributions ask as chats do', async () => {
  const { image, prompt, target } = requestOf(harness.records[0]!);
  const question = prompt.replace(' The answer is:', '');
  const edit = { model: 'templated', set: 'one', editor: 'ft-l', image, prompt: question, target, probes: 'none' };
  const made = await harness.ask('POST', '/v1/edits', edit);
  expect(made.status).toBe(201);
  expect(made.json).toMatchObject({ prompt: question, target, took: true });
  const after = await chat('templated@one', messages(question, image));
  expect(after.json.choices[0].message.content).toMatch(new RegExp(`^${target}`));
  const { json } = await harness.ask('POST', '/v1/attributions', {
    ...{ model: 'templated@one', image, prompt: question, draws: 1, layers: [2] },
  });
  expect(json.key.text.trim()).toBe(target.split(' ')[0]);
  expect(json.visual.layers[0].patches.length).toBe(36);
});

test('a template that refuses the conversation says so, without the place of its file', async () => {
  const { status, json } = await chat('templated', [{ role: 'assistant', content: 'Hello' }]);
  expect(status).toBe(400);
  expect(json.error).toMatchObject({ code: 'invalid_prompt', param: 'messages' });
  expect(json.error.message).toBe('the chat template in templated/chat_template.jinja stops with: the user begins');
});
