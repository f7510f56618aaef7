/** Conversations as inputs of models: the ids are those of transformers 4.43 on the same folder, greedy. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { probesInChat } from '../../src/evaluation/probes.ts';
import type { Message } from '../../src/input/chat/chat.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type Asked, imagesOf, textOf } from '../../src/input/segments.ts';
import { unedited } from '../../src/models/answer.ts';
import { barePrompt, conversation, stopAt } from '../../src/models/chat.ts';
import { generate } from '../../src/models/generate.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';
import { randomPicture } from '../tiny-model.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-chat-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const [first, second] = [randomPicture(1), randomPicture(2)];
const turns = (image = first): Message[] => [
  { role: 'user', content: [{ picture: image }, { text: 'What is this?' }] },
  { role: 'assistant', content: 'A dog.' },
  { role: 'user', content: 'What colour?' },
];
/** Pictures as `[n]`. */
function shown({ prompt }: Asked): string {
  let n = 0;
  return typeof prompt === 'string' ? prompt : prompt.map((part) => ('text' in part ? part.text : `[${n++}]`)).join('');
}

describe.skipIf(!hasFixtures)('the tiny models', () => {
  const open = (name: string): Vlm => loadModel(join(fixturesDir, name), { threads: 1 });

  test('LLaVA: one turn and two, as transformers answers them', async () => {
    const vlm = open('tiny-llava');
    const image = await decodeImage(join(fixturesDir, 'images', 'scene0.png'));
    const ask = async (asked: Asked) => (await unedited(vlm).generate([asked], { maxNewTokens: 8 }))[0]!.tokenIds;
    const question: Message = { role: 'user', content: [{ picture: image }, { text: 'What is in the picture?' }] };
    expect(await ask(conversation(vlm, [question]))).toEqual([762, 221, 487, 806, 638, 857, 799, 619]);
    expect(await ask(conversation(vlm, turns(image)))).toEqual([352, 135, 44, 356, 535, 611, 183, 420]);
    const typed = 'USER: <image>\nWhat is in the picture? ASSISTANT:';
    expect(await ask({ prompt: typed, image })).toEqual([762, 221, 487, 806, 638, 857, 799, 619]);
    expect(vlm.layout(conversation(vlm, [question])).ids).toEqual(vlm.layout({ prompt: typed, image }).ids);
    await vlm.release();
  });

  test('BLIP-2 has its picture first, MiniGPT-4 within its marks', async () => {
    const blip2 = open('tiny-blip2-opt');
    expect(shown(conversation(blip2, turns()))).toBe('[0]Question: What is this? Answer: A dog. Question: What colour? Answer:');
    expect(blip2.layout(conversation(blip2, turns())).spans[0]![0]![0]).toBe(0);
    const miniGpt4 = open('tiny-minigpt4');
    expect(shown(conversation(miniGpt4, turns()))).toMatch(
      /###Human: <Img>\[0\]<\/Img> What is this\?###Assistant: A dog\.###Human/,
    );
    expect(miniGpt4.chat!.stop).toEqual(['###']);
  });

  test("the folder's own template comes before the family's; its first token is not doubled", () => {
    const dir = join(scratch, 'own');
    cpSync(join(fixturesDir, 'tiny-llava'), dir, { recursive: true });
    writeFileSync(
      join(dir, 'chat_template.jinja'),
      "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{% for c in m.content %}{{ '<image>' if c.type == 'image' else c.text }}{% endfor %}{% endfor %}[answer]\n",
    );
    const vlm = loadModel(dir, { threads: 1 });
    expect(vlm.chat!.own).toBe(true);
    const asked = conversation(vlm, turns());
    expect(shown(asked)).toBe('[user][0]What is this?[assistant]A dog.[user]What colour?[answer]');
    const { ids } = vlm.layout(asked);
    expect(ids.filter((id) => id === ids[0])).toHaveLength(1);
  });

  test('a template that fails leaves bare prompts alone', () => {
    const dir = join(scratch, 'broken');
    cpSync(join(fixturesDir, 'tiny-llava'), dir, { recursive: true });
    writeFileSync(join(dir, 'chat_template.jinja'), "{# image #}{{ raise_exception('not today') }}");
    const vlm = loadModel(dir, { threads: 1 });
    expect(vlm.layout({ prompt: 'What?', image: first }).spans).toHaveLength(1);
    expect(() => conversation(vlm, turns())).toThrow(/chat_template\.jinja stops with: not today/);
  });
});

describe('mini-llava', () => {
  const vlm = loadModel('mini-llava', { threads: 1 });
  const visual = vlm.architecture.fixed!.count;

  test('pictures in any turn', () => {
    const asked = conversation(vlm, [...turns(), { role: 'assistant', content: 'Brown.' }, ...turns(second)]);
    const { spans, ids } = vlm.layout(asked);
    expect(spans).toHaveLength(2);
    for (const [run] of spans) expect(ids.slice(...run!)).toEqual(new Array(visual).fill(-1));
    expect(spans[1]![0]![0]).toBeGreaterThan(spans[0]![0]![1]);
  });

  test('a bare prompt with pictures: at its placeholders, or before it', () => {
    expect(barePrompt(vlm, 'What?', [first])).toEqual({ prompt: 'What?', image: first });
    expect(shown(barePrompt(vlm, 'What?', [first, second]))).toBe('[0]\n[1]\nWhat?');
    expect(shown(barePrompt(vlm, 'Is <image> or <image> red?', [first, second]))).toBe('Is [0] or [1] red?');
    expect(() => barePrompt(vlm, 'Is <image> red?', [first, second])).toThrow('<image> 1 times and 2 pictures');
  });

  test('the answer to a conversation begins behind a space, or behind a line break', () => {
    const ends = (end: string, target: string) => vlm.codec.decode(vlm.layout({ prompt: [{ text: `cat${end}` }] }, target).ids);
    expect(ends(' The answer is:', 'dog')).toBe(ends(' The answer is:', ' dog'));
    expect(vlm.layout({ prompt: [{ text: 'cat\n' }] }, 'dog').targetIds).not.toEqual(
      vlm.layout({ prompt: [{ text: 'cat\n' }] }, ' dog').targetIds,
    );
  });

  test('questions around an edit keep to the conversation', () => {
    const messages: Message[] = [{ role: 'system', content: 'Short.' }, ...turns()];
    const probes = probesInChat(vlm, messages, { rephrasings: ['Which colour?'] });
    for (const probe of probes)
      expect(textOf(probe.prompt)).toMatch(/^Short\. USER: .* ASSISTANT: A dog\.<\/s>USER: .* ASSISTANT:$/s);
    const of = (kind: string) => probes.find((probe) => probe.kind === kind)!;
    expect(textOf(of('textGenerality').prompt)).toContain('USER: Which colour? ASSISTANT:');
    expect(imagesOf(of('textGenerality'))).toEqual([first]);
    expect(imagesOf(of('textLocality'))).toEqual([]);
    expect(imagesOf(of('modalLocality'))).not.toEqual([first]);
  });

  test('an answer ends at a stop text', async () => {
    const batch = await vlm.batch([vlm.layout({ prompt: 'Describe the picture.', image: first })]);
    const [whole] = await generate(vlm, batch, { maxNewTokens: 12 });
    const text = vlm.codec.decode(whole!);
    const word = text.split(' ')[2]!;
    const { onToken, cut } = stopAt(vlm, [word]);
    const [short] = await generate(vlm, batch, { maxNewTokens: 12, ...(onToken && { onToken }) });
    expect(short!.length).toBeLessThan(whole!.length);
    expect(cut(vlm.codec.decode(short!))).toBe(text.slice(0, text.indexOf(word)).trimEnd());
    expect(stopAt(vlm, []).cut(text)).toBe(text);
  });
});
