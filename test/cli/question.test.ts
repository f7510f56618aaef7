/** What commands ask: prompts, conversations, and pictures beside them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type GivenQuestion, readQuestion } from '../../apps/cli/question.ts';
import { pictureCount, textOf } from '../../src/input/segments.ts';
import { loadModel } from '../../src/models/load.ts';

const dir = mkdtempSync(join(tmpdir(), 'visedit-question-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const vlm = loadModel('mini-llava', { threads: 1 });
const [picture, chat] = [join(dir, 'a.png'), join(dir, 'chat.json')];

beforeAll(async () => {
  await sharp({ create: { width: 8, height: 8, channels: 3, background: 'red' } })
    .png()
    .toFile(picture);
  const content = [{ type: 'image', image: 'a.png' }, { type: 'image' }, { type: 'text', text: 'Are they the same?' }];
  writeFileSync(chat, JSON.stringify([{ role: 'user', content }]));
});

const ask = (given: Partial<GivenQuestion>) =>
  readQuestion(vlm, { prompt: undefined, system: undefined, messages: undefined, image: [], ...given }, { log: () => {} });

test('a prompt is bare; with a system text it is a conversation', async () => {
  const bare = await ask({ prompt: 'What?', image: [picture] });
  expect([bare.asked.prompt, bare.words, bare.messages]).toEqual(['What?', 'What?', undefined]);
  const told = await ask({ prompt: 'What?', image: [picture, picture], system: 'Short.' });
  expect(textOf(told.asked.prompt)).toBe('Short. USER: \n\nWhat? ASSISTANT:');
  expect([pictureCount(told.asked), told.words]).toEqual([2, 'Short.\nWhat?']);
});

test('a file of messages takes the pictures that it does not name', async () => {
  const { asked } = await ask({ messages: chat, image: [picture] });
  expect(textOf(asked.prompt)).toBe('USER: \n\nAre they the same? ASSISTANT:');
  expect(pictureCount(asked)).toBe(2);
});

test('what does not go together is refused', async () => {
  await expect(ask({})).rejects.toThrow('give --prompt TEXT or --messages FILE');
  await expect(ask({ prompt: 'What?', messages: chat })).rejects.toThrow('give one of them');
  await expect(ask({ messages: chat })).rejects.toThrow('message 1 has picture 1 of those that name no file');
  writeFileSync(join(dir, 'told.json'), JSON.stringify([{ role: 'system', content: 'x' }]));
  await expect(ask({ messages: join(dir, 'told.json'), system: 'Short.' })).rejects.toThrow('leave one out');
});
