import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { type ChatForm, type Message, type Part, renderChat } from '../../../src/input/chat/chat.ts';
import { renderTemplate, strftime } from '../../../src/input/chat/jinja.ts';
import { readChatTemplate } from '../../../src/input/chat/template.ts';
import { sharedDir } from '../../shared.ts';

interface Template {
  name: string;
  source: string;
  tokens: Record<string, string>;
  placeholder: string;
  rendered: Record<string, string>;
}
type Content = { type: 'text'; text: string } | { type: 'image' };
const reference = JSON.parse(readFileSync(join(import.meta.dirname, 'rendered.json'), 'utf8')) as {
  now: string;
  conversations: Record<string, { role: string; content: Content[] }[]>;
  templates: Template[];
};
const now = new Date(reference.now);

/** The conversations of the reference; pictures are their numbers. */
function conversation(name: string): Message<number>[] {
  let pictures = 0;
  return reference.conversations[name]!.map(({ role, content }) => ({
    role,
    content: content.map((part) => (part.type === 'text' ? { text: part.text } : { picture: pictures++ })),
  }));
}
const formOf = ({ source, tokens, placeholder, name }: Template): ChatForm => ({
  template: { source, tokens, origin: name },
  placeholder,
});
const joined = (parts: readonly Part<number>[], placeholder: string): string =>
  parts.map((part) => ('text' in part ? part.text : placeholder)).join('');
const form = (source: string, placeholder = '<image>'): ChatForm => ({
  template: { source, tokens: {}, origin: 'folder/chat_template.jinja' },
  placeholder,
});
const ask = (...content: Part<number>[]): Message<number> => ({ role: 'user', content });

describe.each(reference.templates)('the template of $name', (template) => {
  test.each(Object.keys(reference.conversations))('writes what transformers writes: %s', (name) => {
    const parts = renderChat(conversation(name), formOf(template), { now });
    expect(joined(parts, template.placeholder)).toBe(template.rendered[name]);
    const pictures = parts.flatMap((part) => ('picture' in part ? [part.picture] : []));
    expect(pictures).toEqual(pictures.map((_, i) => i));
  });
});

describe('where a template lies', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'visedit-chat-'));
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));
  let folders = 0;
  const folder = (files: Record<string, unknown>): string => {
    const dir = join(scratch, String(folders++));
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(dirname(join(dir, name)), { recursive: true });
      writeFileSync(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
    }
    mkdirSync(dir, { recursive: true });
    return dir;
  };
  const sourceIn = (files: Record<string, unknown>) => readChatTemplate(folder(files))?.source;

  test('each place, as text or named', () => {
    expect(sourceIn({})).toBeUndefined();
    expect(sourceIn({ 'tokenizer_config.json': { chat_template: null } })).toBeUndefined();
    expect(sourceIn({ 'tokenizer_config.json': { chat_template: 'a' } })).toBe('a');
    const named = [
      { name: 'tool_use', template: 't' },
      { name: 'default', template: 'd' },
    ];
    expect(sourceIn({ 'tokenizer_config.json': { chat_template: named } })).toBe('d');
    expect(sourceIn({ 'chat_template.jinja': 'b\n' })).toBe('b\n');
    expect(sourceIn({ 'chat_template.json': { chat_template: 'c' } })).toBe('c');
    expect(sourceIn({ 'processor_config.json': { chat_template: 'p' } })).toBe('p');
    expect(sourceIn({ 'chat_template.jinja': 'b', 'additional_chat_templates/tool_use.jinja': 't' })).toBe('b');
  });

  test('the processor comes before the tokenizer, and its old file before the new one', () => {
    const files: Record<string, unknown> = {
      'tokenizer_config.json': { chat_template: 'a' },
      'chat_template.jinja': 'b',
      'chat_template.json': { chat_template: 'c' },
      'processor_config.json': { chat_template: 'p' },
    };
    for (const [first, expected] of [
      ['processor_config.json', 'p'],
      ['chat_template.json', 'c'],
      ['chat_template.jinja', 'b'],
      ['tokenizer_config.json', 'a'],
    ] as const) {
      expect(sourceIn(files)).toBe(expected);
      delete files[first];
    }
  });

  test('special tokens are its variables', () => {
    const dir = folder({
      'special_tokens_map.json': { bos_token: '<a>', pad_token: { content: '<p>' } },
      'tokenizer_config.json': { bos_token: { content: '<s>' }, eos_token: null, boi_token: '<i>', add_bos_token: true },
      'chat_template.jinja': '{{ bos_token }}{{ boi_token }}{{ pad_token }}{{ eos_token }}{{ add_bos_token }}',
    });
    expect(renderTemplate(readChatTemplate(dir)!, [])).toBe('<s><i><p>');
  });

  test('what cannot be used is named', () => {
    const named = [{ name: 'tool_use', template: 't' }];
    expect(() => sourceIn({ 'tokenizer_config.json': { chat_template: named } })).toThrow(
      /tokenizer_config\.json has chat templates named tool_use, and none named default/,
    );
    expect(() => sourceIn({ 'additional_chat_templates/rag.jinja': 't' })).toThrow(/additional_chat_templates has .*named rag/);
    expect(() => sourceIn({ 'tokenizer_config.json': { chat_template: 3 } })).toThrow(/chat_template: expected a template/);
    expect(() => sourceIn({ 'chat_template.jinja': 'x'.repeat(2 ** 20 + 1) })).toThrow(/at most 1048576/);
  });

  const modern = join(sharedDir, 'fixtures-modern');
  test.skipIf(!existsSync(modern))('folders as transformers writes them, and as they are published', () => {
    for (const { name, source, tokens } of reference.templates.filter((one) => one.name.startsWith('tiny-'))) {
      const found = readChatTemplate(join(modern, name));
      expect(found?.source).toBe(source);
      expect(found?.tokens).toMatchObject(tokens);
    }
  });
});

describe('pictures', () => {
  const simple = form(
    "{% for m in messages %}{% for c in m.content %}{{ '<image>' if c.type == 'image' else c.text }}{% endfor %}{% endfor %}",
  );

  test('stand where their parts stand', () => {
    const part = fc.oneof(
      fc.record({ text: fc.string({ minLength: 1 }).filter((text) => !text.includes('<image>')) }),
      fc.record({ picture: fc.nat() }),
    );
    const messages = fc.array(fc.record({ role: fc.constant('user'), content: fc.array(part) }), { minLength: 1 });
    const merged = (parts: readonly Part<number>[]): Part<number>[] => {
      const all: Part<number>[] = [];
      for (const one of parts) {
        const last = all.at(-1);
        if ('text' in one && last !== undefined && 'text' in last) all[all.length - 1] = { text: last.text + one.text };
        else all.push(one);
      }
      return all;
    };
    fc.assert(
      fc.property(messages, (given) => {
        // Texts that meet must not spell the placeholder.
        const expected = merged(given.flatMap(({ content }) => content));
        fc.pre(expected.every((one) => !('text' in one && one.text.includes('<image>'))));
        expect(renderChat(given, simple)).toEqual(expected);
      }),
    );
  });

  test('a placeholder in a text is no picture', () => {
    expect(() => renderChat([ask({ text: 'hi' }), ask({ text: 'what is <image>?' })], simple)).toThrow(
      /message 2 \(user\) has <image> in its text/,
    );
    expect(() => renderChat([ask({ text: '<ima' }, { text: 'ge>' })], simple)).toThrow(
      /have 0 pictures.* writes <image> 1 times/,
    );
  });

  test('a picture that the template has no place for is named by its message', () => {
    const onlyUser = form(
      "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}{% if m.role == 'user' %}<image>{% endif %}{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}",
    );
    const system: Message<number> = { role: 'system', content: [{ picture: 0 }, { text: 'a' }] };
    expect(() => renderChat([ask({ text: 'b' }), system, ask({ picture: 1 })], onlyUser)).toThrow(
      /have 2 pictures, but the chat template in folder\/chat_template\.jinja writes <image> 1 times, and it is message 2 \(system\)/,
    );
  });

  test('a template that was written for texts gets texts', () => {
    const words = form("{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\n' }}{% endfor %}");
    expect(renderChat([{ role: 'system', content: 'short' }, ask({ picture: 7 }, { text: 'What?' })], words)).toEqual([
      { text: 'system: short\nuser: ' },
      { picture: 7 },
      { text: '\nWhat?\n' },
    ]);
  });

  test('a template that takes parts from the user and texts from the others gets both', () => {
    const mixed = form(
      "{% for m in messages %}{% if m.role == 'user' %}{% for c in m.content %}{{ '<image>' if c.type == 'image' else c.text }}{% endfor %}{% else %}{{ m.role + ': ' + m.content + '. ' }}{% endif %}{% endfor %}",
    );
    const system: Message<number> = { role: 'system', content: [{ text: 'short' }] };
    expect(renderChat([system, ask({ picture: 7 }, { text: 'What?' })], mixed)).toEqual([
      { text: 'system: short. ' },
      { picture: 7 },
      { text: 'What?' },
    ]);
    const never = form("{% for m in messages %}{{ m.content ~ '' }}{% endfor %}{# image #}");
    expect(() => renderChat([ask({ picture: 7 }, { text: 'What?' })], never)).toThrow('writes parts of messages as lists');
  });

  test('no messages', () => {
    expect(() => renderChat([], simple)).toThrow('no messages');
  });
});

describe('templates that do harm', () => {
  const limits = { timeLimit: 300 };
  // Which limit is met first depends on the machine.
  const endless = /did not end within 0\.3 seconds|computes without end/;
  test.each([
    ['loops', '{% for i in range(100000) %}{% for i in range(100000) %}{% endfor %}{% endfor %}', endless],
    ['doubles a text', '{% set n = namespace(a="xx") %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}', endless],
    ['doubles a list', '{% set n = namespace(a=[1]) %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}', endless],
    [
      'nests lists',
      '{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}',
      endless,
    ],
    [
      'multiplies a text',
      '{% set n = namespace(a="xx") %}{% for i in range(20) %}{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a | replace("x", n.a) }}',
      endless,
    ],
    ['counts far', '{{ range(1000000000) }}', /stops with: range\(0, 1000000000, 1\) is longer than 100000/],
    ['counts without steps', '{{ range(1, 2, 0) }}', /stops with: range\(1, 2, 0\) is longer/],
    ['throws', '{{ raise_exception("only one user") }}', /stops with: only one user/],
    ['is cut off', '{% for m in messages %}', /stops with: /],
    ['uses what is not there', '{{ messages[0].role | shout }}', /stops with: Unknown StringValue filter: shout/],
    ['asks for a date of its own', '{{ strftime_now("%Q") }}', /stops with: strftime_now does not know %Q/],
  ])('%s', (_, source, message) => {
    const began = performance.now();
    const render = () => renderTemplate(form(source).template, [{ role: 'user', content: 'hi' }], limits);
    expect(render).toThrow('the chat template in folder/chat_template.jinja ');
    expect(render).toThrow(message);
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test('a long conversation is no harm', () => {
    const long: Message<number>[] = Array.from({ length: 200 }, (_, i) => ({
      role: i % 2 === 0 ? 'user' : 'assistant',
      content: [{ text: 'word '.repeat(1000) }],
    }));
    const collects = form(
      "{% set n = namespace(all='') %}{% for m in messages %}{% for c in m.content %}{% set n.all = n.all + c.text | trim + '\n' %}{% endfor %}{% endfor %}{{ n.all }}{# image #}",
    );
    expect(renderChat(long, collects)).toEqual([{ text: `${'word '.repeat(1000).trim()}\n`.repeat(200) }]);
  });
});

test('dates are written as Python writes them', () => {
  const date = new Date(2024, 1, 3, 0, 5, 9);
  expect(strftime(date, '%d %B %Y|%-d %b %y|%A %a|%j|%H:%M:%S|%I %p|%m|100%%')).toBe(
    '03 February 2024|3 Feb 24|Saturday Sat|034|00:05:09|12 AM|02|100%',
  );
});
