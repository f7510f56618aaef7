/**
 * Packing: all lessons about a scene share one sequence, `prefix lesson lesson ...`. A block mask lets a lesson see the prefix (with the
 * picture) and itself; positions restart after the prefix, so every lesson stands where it would stand alone. Text-only facts see only themselves.
 */

import { f32, i64, type Tensor } from '../../src/graph/dtype.ts';
import { MASKED } from '../../src/models/batch.ts';
import { encodeLesson, type LessonScene } from '../world/lessons.ts';

export interface Prefix {
  /** tokens before and after the visual tokens, shared by all lessons with a picture */
  before: readonly number[];
  after: readonly number[];
  visualTokens: number;
  /** the lesson's text begins what the tokenizer sees; otherwise a line break stands before it */
  begins?: boolean;
  /** positions of all of these tokens on several axes, and of the text behind them; absent: 0, 1, 2, … */
  places?: { readonly axes: readonly (readonly number[])[]; readonly next: number };
  /** tokens before a text without a picture */
  text?: readonly number[];
  /** a second picture behind the first one, seen by questions about two pictures alone */
  second?: {
    /** tokens between the two: those after the first picture, and those before the second */
    readonly between: readonly number[];
    /** as `places`, of both pictures with all that stands around them */
    readonly places?: NonNullable<Prefix['places']>;
  };
}

export interface Packed {
  /** ids [s, l], positions [s, l] or [axes, s, l], bias [s, 1, l, l] */
  feeds: Record<string, Tensor>;
  length: number;
  /** flat positions [r] whose next token is learned, that token, and its weight (weights sum to 1) */
  rows: number[];
  labels: number[];
  weights: number[];
  /** kind of the lesson that each row belongs to */
  kinds: string[];
}

export function pack(scenes: readonly LessonScene[], prefix: Prefix, weightOf: (kind: string) => number = () => 1): Packed {
  const { before, after, second } = prefix;
  const picture = new Array<number>(prefix.visualTokens).fill(0);
  const framed = [...before, ...picture, ...(second ? [...second.between, ...picture] : []), ...after];
  const start = framed.length;
  // What questions about one picture see.
  const single = before.length + prefix.visualTokens + after.length;
  const blocks = scenes.map((scene) => [
    ...scene.lessons.map((lesson) => ({
      ...encodeLesson(lesson, prefix.begins ?? false),
      kind: lesson.kind as string,
      text: false,
      both: lesson.kind === 'pair',
    })),
    ...scene.facts.map((lesson) => {
      const { prompt, answer, loss } = encodeLesson(lesson, true);
      return { prompt: [...(prefix.text ?? []), ...prompt], answer, loss, kind: 'fact', text: true, both: false };
    }),
  ]);
  const lengthOf = (block: { prompt: number[]; answer: number[] }): number => block.prompt.length + block.answer.length;
  const length = Math.max(...blocks.map((list) => list.reduce((sum, block) => sum + lengthOf(block), start)));
  const s = scenes.length;
  const ids = new BigInt64Array(s * length);
  const inOrder = { axes: [Array.from({ length: start }, (_, i) => i)], next: start };
  const whole = (second === undefined ? prefix.places : second.places) ?? inOrder;
  const { axes } = whole;
  const nextOf = (both: boolean): number => (both ? whole.next : (prefix.places?.next ?? single));
  const positions = new BigInt64Array(axes.length * s * length);
  const placeAt = (at: number, of: (axis: number) => number): void => {
    axes.forEach((_, axis) => {
      positions[axis * s * length + at] = BigInt(of(axis));
    });
  };
  const bias = new Float32Array(s * length * length).fill(MASKED);
  const rows: number[] = [];
  const labels: number[] = [];
  const weights: number[] = [];
  const kinds: string[] = [];
  blocks.forEach((list, n) => {
    const at = n * length;
    const see = (i: number, from: number, to: number): void => {
      bias.fill(0, (at + i) * length + from, (at + i) * length + to);
    };
    framed.forEach((id, i) => {
      ids[at + i] = BigInt(id);
      placeAt(at + i, (axis) => axes[axis]![i]!);
      see(i, 0, i + 1);
    });
    let cursor = start;
    for (const { prompt, answer, loss, kind, text, both } of list) {
      const tokens = [...prompt, ...answer];
      const weight = weightOf(kind);
      tokens.forEach((id, i) => {
        const p = cursor + i;
        ids[at + p] = BigInt(id);
        placeAt(at + p, () => (text ? i : nextOf(both) + p - cursor));
        see(p, cursor, p + 1);
        if (!text) see(p, 0, both ? start : single);
        const learned = i + 1 - prompt.length;
        if (learned >= 0 && learned < answer.length && loss[learned] === 1) {
          rows.push(at + p);
          labels.push(answer[learned]!);
          weights.push(weight);
          kinds.push(kind);
        }
      });
      cursor += tokens.length;
    }
    // Padding sees itself, so that its softmax is defined.
    for (let p = cursor; p < length; p++) see(p, p, p + 1);
  });
  const total = weights.reduce((a, b) => a + b, 0);
  return {
    feeds: {
      ids: i64(ids, [s, length]),
      positions: i64(positions, axes.length === 1 ? [s, length] : [axes.length, s, length]),
      bias: f32(bias, [s, 1, length, length]),
    },
    length,
    rows,
    labels,
    weights: weights.map((w) => w / total),
    kinds,
  };
}
