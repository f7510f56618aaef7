/**
 * Steering (Turner et al. 2023; Rimsky et al. 2024): the difference of two prompts' states at their last position, h[l](toward) − h[l](away), is added
 * to the residual stream after a layer, at every word behind the pictures and at every token of the answer.
 */

import { z } from 'zod';
import { f32, type Tensor } from '../../graph/dtype.ts';
import { add, input, mul } from '../../graph/index.ts';
import type { Reading } from '../../models/answer.ts';
import { generate } from '../../models/generate.ts';
import { defineRewrite, type Rewrite } from '../../models/rewrite.ts';
import type { Patch } from '../../models/sites.ts';
import type { Vlm } from '../../models/vlm.ts';
import { nextToken } from '../next-token.ts';
import { defineTool, endOf, groupsOf, keyOf, under } from './tool.ts';

const steering = defineRewrite(({ layer, hidden }: { layer: number; hidden: number }) => {
  const site = `layers.${layer}.out`;
  const direction = () => input('steer.direction', [1, 1, hidden]);
  const whole: Patch = (x) => add(x, mul(input('steer.at', [1, x.dim(1), 1]), direction()));
  const step: Patch = (x) => add(x, direction());
  return { patches: () => new Map([[site, whole]]), steps: () => new Map([[site, step]]) };
});

/** The residual stream after a layer at the last position. */
async function endState(vlm: Vlm, { batch, rewrite }: Reading, layer: number): Promise<Float32Array> {
  const site = `layers.${layer}.out`;
  const d = vlm.decoder.hidden;
  const out = await vlm.run({ from: 0, to: layer + 1, read: [site] }, batch, {}, rewrite);
  const end = batch.sequences[0]!.promptEnd;
  return (out[site]!.data as Float32Array).slice(end * d, (end + 1) * d);
}

/** The difference of two readings' last states after a layer, [d]. */
export async function direction(vlm: Vlm, toward: Reading, away: Reading, layer: number): Promise<Float32Array> {
  const [a, b] = [await endState(vlm, toward, layer), await endState(vlm, away, layer)];
  return a.map((value, i) => value - b[i]!);
}

/** A reading that is steered. */
export function steered(vlm: Vlm, reading: Reading, layer: number, by: Float32Array): Rewrite {
  const l = reading.batch.length;
  const { words } = groupsOf(reading.batch.sequences[0]!);
  const at = new Float32Array(l);
  for (const place of [...words, endOf(reading)]) at[place] = 1;
  const feeds: Record<string, Tensor> = { 'steer.direction': f32(by, [1, 1, by.length]), 'steer.at': f32(at, [1, l, 1]) };
  return under(reading, steering({ layer, hidden: vlm.decoder.hidden }, feeds));
}

export const steer = defineTool({
  id: 'steer',
  summary: 'steering: what the model answers when the difference of two prompts is added to its states',
  details:
    'Takes the states of two prompts (--toward and --away, asked about the same picture) after a layer, at their last token, and adds their difference, times each strength, to the states of the question and of its answer. Strength 0 is the model as it is.',
  options: z.object({
    toward: z.string().min(1).max(4000).describe('prompt whose direction is taken'),
    away: z.string().min(1).max(4000).describe('prompt that it is compared with'),
    layer: z.int().min(0).optional().describe('layer whose output is changed (default: the middle one)'),
    strengths: z
      .string()
      .regex(/^\s*-?[\d.]+(\s*,\s*-?[\d.]+)*\s*$/, 'must be numbers, such as -2,0,1')
      .default('0,0.5,1,2,4')
      .describe('factors of the difference'),
    maxNewTokens: z.int().min(1).max(1000).default(16).describe('longest answer, in tokens'),
  }),
  async run(subject, { toward, away, layer: given, strengths, maxNewTokens }) {
    const { vlm, reading, asked } = subject;
    if (typeof asked.prompt !== 'string') throw new Error('a conversation cannot be steered; give a bare prompt');
    const { layers } = vlm.decoder;
    const layer = given ?? Math.floor((layers - 1) / 2);
    if (layer >= layers) throw new Error(`layer ${layer} is out of range: there are layers 0 to ${layers - 1}`);
    const key = await keyOf(subject);
    const of = (prompt: string): Promise<Reading> => subject.read({ ...asked, prompt });
    const difference = await direction(vlm, await of(toward), await of(away), layer);
    const found: { strength: number; probability: number; text: string }[] = [];
    for (const strength of strengths.split(',').map(Number)) {
      const rewrite = steered(
        vlm,
        reading,
        layer,
        difference.map((value) => strength * value),
      );
      const next = await nextToken(vlm, reading.batch, rewrite);
      const [ids] = await generate(vlm, reading.batch, { maxNewTokens, rewrite });
      found.push({ strength, probability: next.probability(key.id), text: vlm.codec.decode(ids!).trim() });
    }
    const length = Math.sqrt(difference.reduce((sum, value) => sum + value * value, 0));
    return {
      key,
      said: [`After layer ${layer}; the difference has length ${length.toFixed(2)}.`],
      table: {
        head: ['strength', `p(“${key.text}”)`, 'answer'],
        rows: found.map(({ strength, probability, text }) => [strength, probability.toFixed(3), text]),
      },
      matrix: {
        ...{ rows: found.map(({ strength }) => `strength ${strength}`), columns: ['probability'] },
        ...{ values: found.map(({ probability }) => [probability]), what: `probability of “${key.text}”` },
      },
      data: { layer, length, answers: found },
      panels: [
        {
          kind: 'line-chart',
          data: {
            ...{
              title: `Steered after layer ${layer}`,
              xTitle: 'Strength',
              yTitle: `Probability of “${key.text}”`,
              yRange: [0, 1],
            },
            series: [
              { label: key.text, x: found.map(({ strength }) => strength), y: found.map(({ probability }) => probability) },
            ],
          },
        },
      ],
    };
  },
});
