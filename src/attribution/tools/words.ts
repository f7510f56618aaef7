/** Attribution to words of the prompt: how much the log odds of the key token, log p / (1 − p), fall when nothing behind a word sees it, in all layers. */

import { z } from 'zod';
import { cutEdges } from '../cut.ts';
import { nextToken } from '../next-token.ts';
import { defineTool, endOf, fixed, groupsOf, keyOf, partsOf } from './tool.ts';

export const words = defineTool({
  id: 'words',
  summary: 'how much the answer hangs on each word of the prompt, and on the picture',
  details:
    'Hides one word at a time: no later position sees it, in any layer. The value is by how much the log odds of the key token, log p / (1 - p), fall. Below 0: the answer is surer without the word. The last token cannot be hidden, since the answer is read from it. With --data the picture and all words together are hidden.',
  ofPlaces: true,
  options: z.object({}),
  async run(subject, _options, { averaged, onProgress, signal }) {
    const { vlm, reading } = subject;
    const key = await keyOf(subject);
    const whole = await nextToken(vlm, reading.batch, reading.rewrite);
    const sequence = reading.batch.sequences[0]!;
    const end = endOf(reading);
    const groups = groupsOf(sequence);
    // Questions of a data set have other words each.
    const parts = averaged
      ? (['picture', 'words'] as const).map((name) => ({ name, places: groups[name] })).filter(({ places }) => places.length > 0)
      : partsOf(vlm, sequence).filter(({ places }) => places.at(-1)! < end);
    const layers = Array.from({ length: vlm.decoder.layers }, (_, i) => i);
    const fall: number[] = [];
    for (const { places } of parts) {
      signal?.throwIfAborted();
      const own = new Set(places);
      const from = Math.min(...places);
      const queries = Array.from({ length: end + 1 - from }, (_, i) => from + i).filter((place) => !own.has(place));
      const next = await nextToken(vlm, reading.batch, cutEdges(vlm, reading, { queries, keys: places, layers }));
      fall.push(whole.logOdds(key.id) - next.logOdds(key.id));
      onProgress?.(fall.length, parts.length);
    }
    const ranked = parts.map(({ name }, i) => ({ name, value: fall[i]! })).sort((a, b) => b.value - a.value);
    return {
      key,
      said: [
        `“${key.text}” hangs most on: ${ranked
          .slice(0, 3)
          .map(({ name, value }) => `${name} (${value.toFixed(2)})`)
          .join(', ')}.`,
      ],
      table: { head: ['word', 'fall of the log odds'], rows: parts.map(({ name }, i) => [name, fixed(fall[i]!, 3)]) },
      matrix: {
        ...{ rows: parts.map(({ name }) => name), columns: ['fall'], values: fall.map((value) => [value]) },
        what: `fall of the log odds of “${key.text}”`,
      },
      data: { words: parts.map(({ name, places }, i) => ({ text: name, positions: places, fall: fall[i] })) },
      panels: [
        {
          kind: 'matrix',
          data: {
            ...{ rows: parts.map(({ name }) => name), columns: ['fall'], values: fall.map((value) => [value]) },
            ...{ title: `What “${key.text}” hangs on`, scaleTitle: 'Fall of the log odds without it (nats)' },
          },
        },
      ],
    };
  },
});
