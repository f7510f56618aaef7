/**
 * The model under test with the fixture's inputs: a picture that has stored pixel values is read from those, so that one rounded pixel does
 * not count as a difference of everything after it.
 */
import { createHash } from 'node:crypto';
import { f32, type Tensor } from '../../src/graph/dtype.ts';
import type { Message, Part } from '../../src/input/chat/chat.ts';
import type { Asked, PreparedPicture, Prompt, RgbImage, Segment } from '../../src/input/segments.ts';
import type { Batch } from '../../src/models/batch.ts';
import { conversation } from '../../src/models/chat.ts';
import { loadModel } from '../../src/models/load.ts';
import { followedBy, type Sequence } from '../../src/models/sequence.ts';
import { Vlm, type VlmParts } from '../../src/models/vlm.ts';
import type { CompileOptions } from '../../src/runtime/program.ts';
import type { Checks } from './checks.ts';
import type { Case, Fixture } from './fixture.ts';

export interface Subject {
  readonly fixture: Fixture;
  /** reads stored pixel values where there are some */
  readonly vlm: Vlm;
  /** the model's own processor, from picture to pixel values; `together`: pictures of the prompt, this one included */
  readonly processor: (image: RgbImage, together?: number) => PreparedPicture;
  readonly checks: Checks;
}

/**
 * A bare prompt of the fixtures of modern families is one user message, its picture first; a target follows the rendered text without a space.
 */
class ChatVlm extends Vlm {
  override layout(asked: Asked, target?: string): Sequence {
    if (typeof asked.prompt !== 'string') return super.layout(asked, target);
    const content: Part[] = [...(asked.image === undefined ? [] : [{ picture: asked.image }]), { text: asked.prompt }];
    const { prompt } = conversation(this, [{ role: 'user', content }]);
    const alone = super.layout({ prompt });
    if (target === undefined) return alone;
    const { ids, ...rest } = super.layout({ prompt: followed(prompt, target) });
    const promptEnd = alone.ids.length - 1;
    return { ...rest, ids, promptEnd, targetIds: ids.slice(promptEnd + 1) };
  }
}

/** A rendered prompt ends in text. */
const followed = (prompt: Prompt, more: string): Segment[] => {
  const segments = prompt as readonly Segment[];
  const last = segments.at(-1);
  return last !== undefined && 'text' in last
    ? [...segments.slice(0, -1), { text: last.text + more }]
    : [...segments, { text: more }];
};

export const pixelsOf = (picture: PreparedPicture): Tensor<'float32'> => picture.pixels().pixels as Tensor<'float32'>;

const contentOf = ({ width, height, data }: RgbImage): string =>
  createHash('sha256').update(`${width}x${height}`).update(data).digest('base64');

/** Stored pixel values by picture, and by how many pictures its prompt has where that counts. */
async function storedPixels(
  fixture: Fixture,
  processor: Subject['processor'],
  keyOf: (image: RgbImage, together: number) => string,
): Promise<Map<string, Tensor<'float32'>>> {
  const stored = new Map<string, Tensor<'float32'>>();
  for (const [c, { images }] of fixture.meta.cases.entries()) {
    const all = images.length === 0 ? undefined : fixture.tensor(`${c}.pixel_values`);
    if (all === undefined) continue;
    let at = 0;
    for (const file of images) {
      const image = await fixture.picture(file);
      const { shape, data } = pixelsOf(processor(image, images.length));
      if (at + data.length <= all.data.length)
        stored.set(keyOf(image, images.length), f32(all.data.slice(at, at + data.length), shape));
      at += data.length;
    }
  }
  return stored;
}

export async function openSubject(fixture: Fixture, checks: Checks, options: CompileOptions = {}): Promise<Subject> {
  const own = loadModel(fixture.folder, options);
  const { processor } = own;
  const keyOf = (image: RgbImage, together: number): string =>
    own.architecture.readsTogether === true ? `${contentOf(image)}|${Math.min(together, 2)}` : contentOf(image);
  const stored = await storedPixels(fixture, processor, keyOf);
  const parts: VlmParts = {
    name: own.name,
    architecture: own.architecture,
    engine: own.engine,
    weights: own.weights,
    codec: own.codec,
    processor: (image, together = 1) => {
      const prepared = processor(image, together);
      const pixels = stored.get(keyOf(image, together));
      return pixels === undefined ? prepared : { ...prepared, pixels: () => ({ ...prepared.pixels(), pixels }) };
    },
    eosIds: own.eosIds,
    chat: () => own.chat,
    fingerprint: () => own.fingerprint,
    compileOptions: options,
  };
  const isChat = fixture.meta.cases.some(({ messages }) => messages !== undefined);
  return { fixture, vlm: isChat ? new ChatVlm(parts) : new Vlm(parts), processor, checks };
}

/** A case's messages with their pictures. */
export async function messagesOf({ fixture }: Subject, { messages = [] }: Case): Promise<Message<RgbImage>[]> {
  return Promise.all(
    messages.map(async ({ role, content }) => ({
      role,
      content:
        typeof content === 'string'
          ? content
          : await Promise.all(
              content.map(async (part) =>
                part.type === 'text' ? { text: part.text } : { picture: await fixture.picture(part.image) },
              ),
            ),
    })),
  );
}

/** A prompt with at most one picture. */
export const askedOf = async ({ fixture }: Subject, prompt: string, image?: string | null): Promise<Asked> => ({
  prompt,
  image: image == null ? undefined : await fixture.picture(image),
});

/** What a case asks. */
export async function askedIn(subject: Subject, one: Case): Promise<Asked> {
  if (one.messages === undefined) return askedOf(subject, one.prompt!, one.image);
  return conversation(subject.vlm, await messagesOf(subject, one));
}

/**
 * One prompt as a batch.
 * @param more token ids after it
 */
export function batchOf({ vlm }: Subject, asked: Asked, target?: string, more: readonly number[] = []): Promise<Batch> {
  const sequence = vlm.layout(asked, target);
  return vlm.batch([more.length === 0 ? sequence : followedBy(sequence, more, vlm.decoder.maxPositions)]);
}
