/** Which positions of inputs LiveEdit reads: the picture's, the prompt's behind it, and the answer's. */
import { f32, type Tensor } from '../../graph/dtype.ts';
import { type Dim, input } from '../../graph/index.ts';
import { type BatchShape, columnOf, MASKED } from '../../models/batch.ts';
import { prefixOf, type Sequence, visualPlaces } from '../../models/sequence.ts';
import type { Places } from './modules.ts';

/** Inputs `places.*` [b, l] of a program. */
export const placeInputs = (b: Dim, l: Dim): Places => ({
  visual: input('places.visual', [b, l]),
  prompt: input('places.prompt', [b, l]),
  all: input('places.all', [b, l]),
});

/** [start, end) of the prompt behind the pictures; its last token where a picture ends the prompt. */
const promptRange = (sequence: Sequence): [number, number] => [
  Math.min(prefixOf(sequence), sequence.promptEnd),
  sequence.promptEnd + 1,
];

const between = ([start, end]: readonly [number, number]): number[] => Array.from({ length: end - start }, (_, i) => start + i);

/** Feeds of `placeInputs`: 0 at positions that are read, very negative elsewhere. */
export function placeFeeds(batch: BatchShape): Record<string, Tensor> {
  const { sequences, length } = batch;
  const rows = (name: string, of: (sequence: Sequence) => readonly number[]): [string, Tensor] => {
    const data = new Float32Array(sequences.length * length).fill(MASKED);
    sequences.forEach((sequence, n) => {
      for (const position of of(sequence)) data[n * length + columnOf(batch, n, position)] = 0;
    });
    return [`places.${name}`, f32(data, [sequences.length, length])];
  };
  return Object.fromEntries([
    rows('visual', visualPlaces),
    rows('prompt', (sequence) => between(promptRange(sequence))),
    rows('all', (sequence) => [...visualPlaces(sequence), ...between([promptRange(sequence)[0], sequence.ids.length])]),
  ]);
}
