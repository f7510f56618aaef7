/** What a command asks a model: a bare prompt, or a conversation in the form of the model's chat template; with pictures. */
import { dirname } from 'node:path';
import type { Message } from '../../src/input/chat/chat.ts';
import { type Asked, imagesOf } from '../../src/input/segments.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import type { CommandContext } from './frame/context.ts';
import { file, repeatable, text } from './frame/values.ts';

export const questionOptions = {
  prompt: text('what to ask, in plain words or in the form that the model expects; with --system, the question of the user'),
  image: repeatable(file('picture that the question is about; several are read in the order given')),
  system: text("what the model is told first; the question is then asked in the form of the model's chat template"),
  messages: file('conversation instead of a prompt: a JSON list of {role, content} (docs/chat.md)'),
};

export interface GivenQuestion {
  readonly prompt: string | undefined;
  readonly image: readonly string[];
  readonly system: string | undefined;
  readonly messages: string | undefined;
}

export interface Question {
  readonly asked: Asked;
  /** the conversation that it is written from; absent: a bare prompt */
  readonly messages?: readonly Message[];
  /** what the user wrote */
  readonly words: string;
  /** texts that end an answer */
  readonly stop: readonly string[];
}

/** @throws Error when there is no question or two, or a picture has no place */
export async function readQuestion(vlm: Vlm, given: GivenQuestion, context: Pick<CommandContext, 'log'>): Promise<Question> {
  const question = await writtenQuestion(vlm, given);
  const scaled = scalingOf(vlm, question.asked);
  if (scaled !== undefined) context.log(scaled);
  return question;
}

/** What is said of pictures that have more pixels than the image encoder reads of them; undefined: there is none. */
function scalingOf(vlm: Vlm, asked: Asked): string | undefined {
  const images = imagesOf(asked);
  const larger = images.flatMap((image) => {
    const size = vlm.picture(image, images.length).prepared?.size;
    return size !== undefined && size[0] * size[1] < image.width * image.height ? [{ ...image, size }] : [];
  });
  const [first, ...more] = larger;
  if (first === undefined) return undefined;
  const others = more.length === 0 ? '' : more.length === 1 ? ', another one too' : `, ${more.length} others too`;
  return `A picture of ${first.width} by ${first.height} pixels is scaled to ${first.size[1]} by ${first.size[0]} for the model${others}; --max-pixels changes the limit.`;
}

async function writtenQuestion(vlm: Vlm, { prompt, image: paths, system, messages }: GivenQuestion): Promise<Question> {
  if (prompt !== undefined && messages !== undefined)
    throw new Error('--prompt and --messages both say what to ask; give one of them');
  const [{ decodeImage }, { barePrompt, conversation }, { wordsOf }] = await Promise.all([
    import('../../src/input/image/decode.ts'),
    import('../../src/models/chat.ts'),
    import('../../src/input/chat/chat.ts'),
  ]);
  const pictures = await Promise.all(paths.map((path) => decodeImage(path)));
  const chat = (conversed: readonly Message[]): Question => ({
    asked: conversation(vlm, conversed),
    messages: conversed,
    words: wordsOf(conversed),
    stop: vlm.chat?.stop ?? [],
  });
  const before: Message[] = system === undefined ? [] : [{ role: 'system', content: system }];
  if (messages !== undefined) {
    const [{ readJson }, { parseMessages }] = await Promise.all([
      import('../../src/files/json.ts'),
      import('../../src/input/chat/messages.ts'),
    ]);
    const given = await parseMessages(readJson(messages), { origin: messages, folder: dirname(messages), given: pictures });
    if (system !== undefined && given[0]!.role === 'system')
      throw new Error(`--system and the first message of ${messages} both say what the model is told first; leave one out`);
    return chat([...before, ...given]);
  }
  if (prompt === undefined) throw new Error('nothing is asked; give --prompt TEXT or --messages FILE');
  if (system === undefined) return { asked: barePrompt(vlm, prompt, pictures), words: prompt, stop: [] };
  const content = [...pictures.map((picture) => ({ picture })), { text: prompt }];
  return chat([...before, { role: 'user', content }]);
}
