/**
 * Questions around an edit, by the kinds of the metrics: its prompt in other words and on a changed copy of its picture, where the target must
 * come; other questions and other pictures, where nothing may change. What the caller does not give is made by templates.
 */

import type { EditRequest } from '../editors/editor.ts';
import { type Message, type Part, partsOf } from '../input/chat/chat.ts';
import { answerCue } from '../input/records.ts';
import { type Asked, changePicture, changeQuestion, imagesOf, questionOf, type RgbImage, textOf } from '../input/segments.ts';
import { unknownWords } from '../input/text/unknown-words.ts';
import type { TextCodec } from '../models/architecture.ts';
import { conversation } from '../models/chat.ts';
import type { Vlm } from '../models/vlm.ts';
import type { AskedKind } from './metrics.ts';

/** One question around an edit. */
export interface Probe extends Asked {
  readonly kind: AskedKind;
  /** what is asked about: the edit's own picture, a changed copy of it, another picture, or none */
  readonly picture: 'own' | 'copy' | 'other' | 'none';
}

/** What the caller has to ask with; what is left out is made. */
export interface GivenProbes {
  /** the prompt in other words */
  readonly rephrasings?: readonly string[];
  /** other pictures on which the prompt has the target as its answer, too */
  readonly samePictures?: readonly RgbImage[];
  /** pictures that the edit is not about */
  readonly otherPictures?: readonly RgbImage[];
  /** most of each that templates make where none is given (default: 1) */
  readonly each?: number;
}

/** The questions around an edit; a rephrasing is left out where none is given and no template fits the prompt. */
export function probesOf(request: EditRequest, codec: TextCodec, given: GivenProbes = {}): Probe[] {
  const { prompt, image } = request;
  const { each = 1 } = given;
  const rephrasings = given.rephrasings?.length ? given.rephrasings : rephrasingsOf(questionOf(prompt), codec).slice(0, each);
  const [own] = imagesOf(request);
  const made = own === undefined ? [] : changes.slice(0, each).map((change) => changedCopy(own, change));
  const copies = given.samePictures?.length ? given.samePictures : made;
  const others = given.otherPictures?.length ? given.otherPictures : own === undefined ? [] : [landscape(own)];
  const unrelated = unrelatedQuestions(questionOf(prompt))
    .slice(0, each)
    .map((question) => ({ prompt: changeQuestion(prompt, () => question), image }));
  return [
    ...rephrasings.map(
      (words): Probe => ({
        ...{ kind: 'textGenerality', picture: 'own', image },
        prompt: changeQuestion(prompt, () => words),
      }),
    ),
    ...copies.map((copy): Probe => ({ kind: 'modalGenerality', picture: 'copy', ...changePicture(request, copy) })),
    ...textQuestions.slice(0, each).map((question): Probe => ({ kind: 'textLocality', prompt: question, picture: 'none' })),
    ...others.flatMap((other) =>
      unrelated.map((one): Probe => ({ kind: 'modalLocality', picture: 'other', ...changePicture(one, other) })),
    ),
    ...unrelated.map((one): Probe => ({ kind: 'sameImage', picture: 'own', ...one })),
    ...others.map((other): Probe => ({ kind: 'sameQuestion', picture: 'other', ...changePicture(request, other) })),
  ];
}

/** The same for a conversation: other words take the place of its last question, another picture that of its first one. */
export function probesInChat(vlm: Vlm, messages: readonly Message[], given: GivenProbes = {}): Probe[] {
  const last = messages.findLastIndex(({ role }) => role === 'user');
  const prompt = partsOf(messages[last] ?? { content: '' }).flatMap((part) => ('text' in part ? [part.text] : []));
  const pictures = messages.flatMap(partsOf).flatMap((part) => ('picture' in part ? [part.picture] : []));
  const request = { prompt: prompt.join(' '), image: pictures[0], target: '' };
  return probesOf(request, vlm.codec, given).map(({ kind, picture, prompt: words, image }) => {
    let seen = 0;
    const changed = messages.map((message, m): Message => {
      const own = partsOf(message).flatMap((part): Part[] => {
        if ('text' in part) return m === last ? [] : [part];
        return image === undefined ? [] : [{ picture: seen++ === 0 ? image : part.picture }];
      });
      return { role: message.role, content: m === last ? [...own, { text: textOf(words) }] : own };
    });
    return { kind, picture, ...conversation(vlm, changed) };
  });
}

const textQuestions = ['What is two plus three?', 'Is yellow a color?'];

const unrelated = [
  { question: 'What color is the background?', about: /colou?r|background/i },
  { question: 'How many things are in the picture?', about: /how many|number of/i },
];

/** Questions that have nothing to do with this one. */
function unrelatedQuestions(prompt: string): string[] {
  const fit = unrelated.filter(({ about }) => !about.test(prompt));
  return (fit.length > 0 ? fit : unrelated.slice(-1)).map(({ question }) =>
    prompt.endsWith(answerCue) ? question + answerCue : question,
  );
}

const wordings: readonly (readonly [RegExp, string])[] = [
  [/^What (colou?r|animal|kind|number|shape|thing|object|food|vehicle)\b(.+)$/i, 'Which $1$2'],
  [/^Which (\w+)\b(.+)$/i, 'What $1$2'],
  [/^What is (in|at|on|left|right|above|below|under|behind|near|next) (.+)\?$/i, 'What can be seen $1 $2?'],
  [/^What (?:do you see|can be seen|can you see|sits) (.+)\?$/i, 'What is $1?'],
  [/^How many (.+) (?:are there|are in the picture|do you see|can you see)\?$/i, 'What is the number of $1?'],
  [/^How many times does (.+) appear\?$/i, 'How often does $1 appear?'],
  [/^How often does (.+) appear\?$/i, 'How many times does $1 appear?'],
  [/^(?:Is|Are) there (.+)\?$/i, 'Do you see $1?'],
  [/^(?:Do you see|Can you see|Does) (.+?)(?: appear)?\?$/i, 'Is there $1?'],
  [/^Where (?:is|are) (.+)\?$/i, 'At which place is $1?'],
  [/^(?:Describe|Caption|Write a caption|Tell|Say).*$/i, 'Give a short caption.'],
  [/^Give a short caption.*$/i, 'Describe the picture.'],
  [/^(.+)$/s, 'Look at the picture and answer. $1'],
];

/** The prompt in other words that the tokenizer knows, with the cue for the answer where it had one; undefined where no template fits. */
export const rephrased = (prompt: string, codec: TextCodec): string | undefined => rephrasingsOf(prompt, codec)[0];

function rephrasingsOf(prompt: string, codec: TextCodec): string[] {
  const cue = prompt.endsWith(answerCue) ? answerCue : '';
  const question = cue === '' ? prompt : prompt.slice(0, -cue.length);
  const strange = unknownWords(codec, question).length;
  return wordings.flatMap(([pattern, words]) => {
    if (!pattern.test(question)) return [];
    const other = question.replace(pattern, words);
    return other !== question && unknownWords(codec, other).length <= strange ? [other + cue] : [];
  });
}

/** Brightness, and the direction of the move. */
const changes = [
  [1.06, 1],
  [0.9, -1],
] as const;

/** The picture a little brighter, or darker, and moved by a fiftieth of its size. */
export function changedCopy(
  { width, height, data }: RgbImage,
  [light, direction]: readonly [number, number] = changes[0],
): RgbImage {
  const [dx, dy] = [width, height].map((size) => direction * Math.max(1, Math.round(size / 50))) as [number, number];
  const out = new Uint8Array(data.length);
  const inside = (at: number, size: number): number => Math.min(size - 1, Math.max(0, at));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = 3 * (inside(y - dy, height) * width + inside(x - dx, width));
      for (let c = 0; c < 3; c++) out[3 * (y * width + x) + c] = Math.min(255, Math.round(light * data[from + c]!));
    }
  }
  return { width, height, data: out };
}

/** A drawn picture of the same size: sky, sun and meadow. */
export function landscape({ width, height }: Pick<RgbImage, 'width' | 'height'>): RgbImage {
  const data = new Uint8Array(3 * width * height);
  const radius = 0.12 * Math.min(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const down = y / height;
      const sun = Math.hypot(x - 0.75 * width, y - 0.2 * height) < radius;
      const colour = sun ? [250, 220, 90] : down < 0.6 ? [110 + 140 * down, 170 + 90 * down, 235] : [90, 190 - 100 * down, 60];
      data.set(colour, 3 * (y * width + x));
    }
  }
  return { width, height, data };
}
