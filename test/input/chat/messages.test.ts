import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, expect, test } from 'vitest';
import { parseMessages } from '../../../src/input/chat/messages.ts';

const folder = mkdtempSync(join(tmpdir(), 'visedit-messages-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const png = (r: number) =>
  sharp({ create: { width: 2, height: 1, channels: 3, background: { r, g: 0, b: 0 } } })
    .png()
    .toBuffer();
writeFileSync(join(folder, 'a.png'), await png(1));
const dataUrl = `data:image/png;base64,${(await png(2)).toString('base64')}`;
const given = [3, 4].map((r) => ({ width: 1, height: 1, data: new Uint8Array([r, 0, 0]) }));
const read = (json: unknown, pictures = given.slice(0, 0)) =>
  parseMessages(json, { origin: 'chat.json', folder, given: pictures });

test('parts of every form, in their order', async () => {
  const messages = [
    { role: 'system', content: 'short' },
    {
      role: 'user',
      content: [
        { type: 'image', image: 'a.png' },
        { type: 'image', path: join(folder, 'a.png') },
        { type: 'text', text: 'and' },
        { type: 'image_url', image_url: { url: dataUrl } },
        { type: 'image', url: dataUrl },
        { type: 'image' },
      ],
    },
    { role: 'assistant', content: [{ type: 'text', text: 'yes' }] },
    { role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'why?' }] },
  ];
  const found = await read(messages, given);
  const plain = found.map(({ role, content }) => [
    role,
    typeof content === 'string' ? content : content.map((part) => ('text' in part ? part.text : part.picture.data[0])),
  ]);
  expect(plain).toEqual([
    ['system', 'short'],
    ['user', [1, 1, 'and', 2, 2, 3]],
    ['assistant', ['yes']],
    ['user', [4, 'why?']],
  ]);
  expect(await read({ messages: [{ role: 'user', content: 'x' }] })).toEqual([{ role: 'user', content: 'x' }]);
});

test.each<[string, unknown, RegExp]>([
  ['no list', 3, /chat\.json does not fit/],
  ['an empty list', [], /at least one message/],
  ['no role', [{ content: 'x' }], /role: expected system, user or assistant/],
  ['another part', [{ role: 'user', content: [{ type: 'video' }] }], /expected/],
  [
    'a missing file',
    [{ role: 'user', content: [{ type: 'image', image: 'b.png' }] }],
    /message 1: picture .*b\.png does not exist/,
  ],
  ['an address', [{ role: 'user', content: [{ type: 'image', url: 'https://example.org/a.png' }] }], /save the picture/],
  ['a broken data URL', [{ role: 'user', content: [{ type: 'image', url: 'data:image/png;base64,@' }] }], /message 1: /],
  [
    'a picture that is not given',
    [
      { role: 'user', content: 'a' },
      { role: 'user', content: [{ type: 'image' }] },
    ],
    /message 2 has picture 1 .* 0 are given/,
  ],
])('%s is named', async (_, json, message) => {
  await expect(read(json)).rejects.toThrow(message);
});

test('pictures without a place are refused', async () => {
  await expect(read([{ role: 'user', content: 'a' }], given)).rejects.toThrow(/2 pictures are given .* has 0 parts/);
});
