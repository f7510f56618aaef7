/** The templates of families whose folders have none, against what their authors' code writes. */
import { expect, test } from 'vitest';
import { type Message, renderChat } from '../../../src/input/chat/chat.ts';
import { blip2Chat, type FamilyChat, llavaChat, miniGpt4Chat } from '../../../src/input/chat/families.ts';

const user = (...content: ({ text: string } | { picture: string })[]): Message<string> => ({ role: 'user', content });
const assistant = (content: string): Message<string> => ({ role: 'assistant', content });
const system: Message<string> = { role: 'system', content: 'Answer briefly.' };
const picture = { picture: 'P' };

function written({ template: source, placeholder }: FamilyChat, messages: Message<string>[]): string {
  const template = { source: source!, origin: 'family', tokens: { eos_token: '</s>' } };
  return renderChat(messages, { template, placeholder })
    .map((part) => ('text' in part ? part.text : `[${part.picture}]`))
    .join('');
}

test('LLaVA-1.5', () => {
  const chat = (...messages: Message<string>[]) => written(llavaChat, messages);
  expect(chat(user(picture, { text: 'What is in the picture?' }))).toBe('USER: [P]\nWhat is in the picture? ASSISTANT:');
  expect(chat(user(picture, { text: 'What is this?' }), assistant('A dog.'), user({ text: 'What colour?' }))).toBe(
    'USER: [P]\nWhat is this? ASSISTANT: A dog.</s>USER: What colour? ASSISTANT:',
  );
  expect(chat(system, user({ text: 'Is it ' }, picture, { text: 'this?' }))).toBe(
    'Answer briefly. USER: [P]\nIs it this? ASSISTANT:',
  );
});

test('BLIP-2', () => {
  const chat = (...messages: Message<string>[]) => written(blip2Chat, messages);
  expect(chat(user(picture, { text: 'which city is this?' }))).toBe('[P]Question: which city is this? Answer:');
  expect(chat(user({ text: 'Who?' }), assistant('singapore'), user(picture, { text: 'why?' }))).toBe(
    '[P]Question: Who? Answer: singapore. Question: why? Answer:',
  );
  expect(chat(user({ text: 'Who?' }), assistant('You!'), user({ text: 'why?' }))).toBe(
    'Question: Who? Answer: You! Question: why? Answer:',
  );
  expect(chat(system, user({ text: 'why?' }))).toBe('Answer briefly. Question: why? Answer:');
});

test('MiniGPT-4', () => {
  const chat = (...messages: Message<string>[]) => written(miniGpt4Chat, messages);
  const before =
    'Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. Please answer my questions.###';
  expect(chat(user(picture, { text: 'What is this?' }))).toBe(`${before}Human: <Img>[P]</Img> What is this?###Assistant: `);
  expect(chat(user(picture, { text: 'What is this?' }), assistant('A dog.'), user({ text: 'What colour?' }))).toBe(
    `${before}Human: <Img>[P]</Img> What is this?###Assistant: A dog.###Human: What colour?###Assistant: `,
  );
  expect(chat(system, user({ text: 'Who?' }))).toBe('Answer briefly.###Human: Who?###Assistant: ');
});
