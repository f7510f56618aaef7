/**
 * Contribution of single neurons of the MLPs: by how much the log odds of the key token, log p / (1 − p), fall when what one neuron adds is taken out of
 * the last residual stream. As of heads, it is the direct effect. Of all neurons it is known to first order, and exactly of those that are shown.
 */

import { z } from 'zod';
import { f32 } from '../../graph/dtype.ts';
import { logOdds, rankedTokens } from '../../models/ranked-tokens.ts';
import { tokenText } from '../key-token.ts';
import { neuronParts } from '../neuron-parts.ts';
import { readStates } from './lens.ts';
import { defineTool, endOf, fixed, keyOf, layersOf } from './tool.ts';

/** Neurons of which the effect is measured, for each one that is shown. */
const measured = 4;
const wordsShown = 3;

export const neurons = defineTool({
  id: 'neurons',
  summary: 'which single neurons of the MLPs contribute to the answer directly, and which words they speak for',
  details:
    'Each neuron of an MLP adds its activation, times its column of the last projection, to the residual stream at the position that the answer is read from. The value is how much the log odds of the key token, log p / (1 - p), fall when this part is taken out of the last residual stream. Above 0: the neuron speaks for the token. All neurons are compared by their first order (the part times the gradient of the log odds); those that may be largest are measured. The words are what the part alone says. With --data the mean of the first order is shown.',
  options: z.object({
    layers: z.string().default('all').describe('layers to look at, such as 0,2,4 or 2-5, or all'),
    top: z.int().min(1).max(200).default(10).describe('number of neurons to show, those with the largest effect'),
  }),
  async run(subject, { layers: given, top }, { averaged }) {
    const { vlm, reading } = subject;
    const key = await keyOf(subject);
    const layers = layersOf(given, vlm.decoder.layers);
    const { neurons: found, last } = await neuronParts(vlm, reading, layers, endOf(reading), key.id);
    const all = found.flatMap(({ firstOrder }, at) => Array.from(firstOrder, (value, neuron) => ({ at, neuron, value })));
    const nameOf = ({ at, neuron }: { at: number; neuron: number }): string => `layer ${layers[at]}, neuron ${neuron}`;
    const likely = [...all].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, measured * top);
    const d = last.length;
    const shown: { at: number; neuron: number; firstOrder: number; fall: number; words: string[] }[] = [];
    const whole: number[] = [];
    await readStates(vlm, f32(last, [1, d]), reading.rewrite, (_, logits) => whole.push(logOdds(logits, key.id)));
    for (const [at, { partsOf }] of found.entries()) {
      const own = likely.filter((one) => one.at === at);
      if (own.length === 0) continue;
      const { data } = await partsOf(own.map(({ neuron }) => neuron));
      const without = data.map((value, i) => last[i % d]! - value);
      const odds: number[] = [];
      await readStates(vlm, f32(without, [own.length, d]), reading.rewrite, (_, logits) => odds.push(logOdds(logits, key.id)));
      const words: string[][] = [];
      await readStates(vlm, f32(data, [own.length, d]), reading.rewrite, (_, logits) =>
        words.push(rankedTokens(logits, wordsShown).map(({ id }) => tokenText(vlm, id))),
      );
      own.forEach(({ neuron, value }, i) => {
        shown.push({ at, neuron, firstOrder: value, fall: whole[0]! - odds[i]!, words: words[i]! });
      });
    }
    shown.sort((a, b) => Math.abs(b.fall) - Math.abs(a.fall));
    shown.splice(top);
    const matrix = averaged
      ? {
          ...{ rows: all.map(nameOf), columns: ['fall'], values: all.map(({ value }) => [value]), most: top },
          what: `fall of the log odds of “${key.text}”, to first order`,
        }
      : {
          ...{ rows: shown.map(nameOf), columns: ['fall'], values: shown.map(({ fall }) => [fall]) },
          what: `fall of the log odds of “${key.text}”`,
        };
    const { rows, columns, values } = matrix;
    return {
      key,
      said: [
        `Of ${all.length} neurons, most for “${key.text}”: ${shown
          .filter(({ fall }) => fall > 0)
          .slice(0, 3)
          .map((one) => `${nameOf(one)} (${one.fall.toFixed(2)})`)
          .join('; ')}.`,
      ],
      table: {
        head: ['layer', 'neuron', 'activation', 'fall of the log odds', 'says'],
        rows: shown.map(({ at, neuron, fall, words }) => [
          ...[layers[at]!, neuron, fixed(found[at]!.activations[neuron]!, 3), fixed(fall, 3), words.join(', ')],
        ]),
      },
      matrix,
      data: {
        neurons: shown.map(({ at, neuron, ...one }) => ({
          ...{ layer: layers[at], neuron, activation: found[at]!.activations[neuron], ...one },
        })),
        layers: layers.map((layer, at) => ({
          ...{ layer, neurons: found[at]!.firstOrder.length },
          firstOrder: found[at]!.firstOrder.reduce((a, b) => a + b, 0),
        })),
      },
      panels: [
        {
          kind: 'matrix',
          data: {
            ...{ rows, columns, values, texts: averaged ? undefined : shown.map(({ words }) => [words.join(', ')]) },
            ...{ title: `Neurons for or against “${key.text}”`, columnTitle: '' },
            scaleTitle: 'Fall of the log odds when it is taken out (nats)',
          },
        },
      ],
    };
  },
});
