/**
 * Logit lens (nostalgebraist 2020): the residual stream h[l][n] after each layer through the final norm and the vocabulary matrix,
 * softmax(W_V norm(h[l][n])), at any position: at visual tokens it says which word a patch is about.
 */

import { z } from 'zod';
import { f32, type Tensor } from '../../graph/dtype.ts';
import { input, type Node } from '../../graph/index.ts';
import type { Reading } from '../../models/answer.ts';
import { logProbabilities, type RankedToken, rankedTokens } from '../../models/ranked-tokens.ts';
import type { Rewrite } from '../../models/rewrite.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import { tokenText } from '../key-token.ts';
import { defineTool, endOf, groupsOf, keyOf, layersOf, partsOf, patchNames } from './tool.ts';

/** Logits of one run are at most so many floats. */
const RUN_FLOATS = 16e6;

function headGraph({ decoder }: Vlm, rewrite: Rewrite | undefined): Record<string, Node> {
  return { logits: decoder.head(input('states', ['r', decoder.hidden]), new Weights(rewrite?.replace)) };
}

/**
 * What the model would say of states [r, d].
 * @param each called with the row and its logits [n], which hold until it returns
 */
export async function readStates(
  vlm: Vlm,
  states: Tensor<'float32'>,
  rewrite: Rewrite | undefined,
  each: (row: number, logits: Float32Array) => void,
): Promise<void> {
  const { hidden: d, vocabulary: n } = vlm.decoder;
  const program = await vlm.program(headGraph, rewrite !== undefined && rewrite.replace.size > 0 ? rewrite : undefined);
  const rows = states.shape[0]!;
  const perRun = Math.max(1, Math.floor(RUN_FLOATS / n));
  for (let at = 0; at < rows; at += perRun) {
    const count = Math.min(perRun, rows - at);
    const { logits } = await program.run({
      ...rewrite?.feeds,
      states: f32(states.data.subarray(at * d, (at + count) * d), [count, d]),
    });
    for (let i = 0; i < count; i++) each(at + i, (logits!.data as Float32Array).subarray(i * n, (i + 1) * n));
  }
}

/** What the model would say at one position after one layer. */
export interface LensCell {
  readonly tokens: readonly RankedToken[];
  readonly keyProbability: number;
  /** 0: the most probable */
  readonly keyRank: number;
}

/** The lens at some positions after some layers, [positions][layers]. */
export async function logitLens(
  vlm: Vlm,
  { batch, rewrite }: Reading,
  { layers, positions, top, keyId }: { layers: readonly number[]; positions: readonly number[]; top: number; keyId: number },
): Promise<LensCell[][]> {
  const d = vlm.decoder.hidden;
  const out: LensCell[][] = positions.map(() => []);
  const read = layers.map((layer) => `layers.${layer}.out`);
  const states = await vlm.run({ from: 0, to: Math.max(...layers) + 1, read }, batch, {}, rewrite);
  for (const name of read) {
    const all = states[name]!.data as Float32Array;
    const rows = new Float32Array(positions.length * d);
    positions.forEach((position, i) => {
      rows.set(all.subarray(position * d, (position + 1) * d), i * d);
    });
    await readStates(vlm, f32(rows, [positions.length, d]), rewrite, (row, logits) => {
      const own = logits[keyId]!;
      out[row]!.push({
        tokens: rankedTokens(logits, top),
        keyProbability: Math.exp(logProbabilities(logits)(keyId)),
        keyRank: logits.reduce((above, x) => above + Number(x > own), 0),
      });
    });
  }
  return out;
}

export const lens = defineTool({
  id: 'lens',
  summary: 'logit lens: what the model would say after each layer, at the last position, at each word, and at each patch',
  details:
    'The residual stream after each layer is mapped to the vocabulary by the final norm and the vocabulary matrix. At a visual token, the most probable token says what word the patch is about in that layer. At positions before the last, the token is what the model would say next there.',
  ofPlaces: true,
  options: z.object({
    positions: z.enum(['last', 'words', 'picture', 'all']).default('words').describe('positions to read'),
    layers: z.string().default('all').describe('layers to read, such as 0,2,4 or 2-5, or all'),
    top: z.int().min(1).max(50).default(5).describe('number of tokens at each place'),
  }),
  async run(subject, { positions: which, layers: given, top }, { averaged }) {
    const { vlm, reading } = subject;
    const key = await keyOf(subject);
    const layers = layersOf(given, vlm.decoder.layers);
    const sequence = reading.batch.sequences[0]!;
    const { picture, last } = groupsOf(sequence);
    const words = averaged ? [] : partsOf(vlm, sequence).filter(({ kind }) => kind === 'word');
    const named = [
      ...(which === 'picture' || which === 'all' ? patchNames(sequence).map((name, i) => ({ place: picture[i]!, name })) : []),
      ...(which === 'words' || which === 'all'
        ? words.filter(({ places }) => places.at(-1) !== last[0]).map(({ name, places }) => ({ place: places.at(-1)!, name }))
        : []),
      ...(which !== 'picture' ? [{ place: endOf(reading), name: 'last' }] : []),
    ];
    if (named.length === 0) throw new Error('the input has no picture, so there are no patches to read');
    const cells = await logitLens(vlm, reading, { layers, positions: named.map(({ place }) => place), top, keyId: key.id });
    const text = ({ tokens }: LensCell): string => tokenText(vlm, tokens[0]!.id);
    const columns = layers.map((layer) => `${layer}`);
    const matrix = {
      ...{ rows: named.map(({ name }) => name), columns, what: `probability of “${key.text}”` },
      values: cells.map((row) => row.map(({ keyProbability }) => keyProbability)),
    };
    const final = cells.at(-1)!;
    const from = final.findIndex((_, i) => final.slice(i).every(({ keyRank }) => keyRank === 0));
    return {
      key,
      said:
        which === 'picture'
          ? []
          : [
              from < 0
                ? `“${key.text}” is not what the model says next.`
                : `At the last position “${key.text}” is the first choice from layer ${layers[from]} on.`,
            ],
      table: { head: ['position', ...columns], rows: cells.map((row, i) => [named[i]!.name, ...row.map(text)]) },
      matrix,
      data: {
        layers,
        positions: named.map(({ name, place }, i) => ({
          ...{ name, position: place },
          layers: cells[i]!.map(({ tokens, keyProbability, keyRank }, at) => ({
            ...{ layer: layers[at], keyProbability, keyRank },
            tokens: tokens.map(({ id, logProb }) => ({ id, text: tokenText(vlm, id), probability: Math.exp(logProb) })),
          })),
        })),
      },
      panels: [
        {
          kind: 'matrix',
          data: {
            ...{ title: 'What the model would say', columnTitle: 'Layer', ...matrix },
            ...{ texts: cells.map((row) => row.map(text)), range: [0, 1], scaleTitle: 'Probability of the word in the cell' },
            values: cells.map((row) => row.map(({ tokens }) => Math.exp(tokens[0]!.logProb))),
          },
        },
      ],
    };
  },
});
