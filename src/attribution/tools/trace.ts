/**
 * Causal tracing (Meng et al. 2022) and activation patching: a run on a corrupted input is given single states of the run on the clean input, and the
 * value of a state is how much of the answer it brings back,
 *   (p(restored) − p(corrupted)) / (p(clean) − p(corrupted)).
 * The corrupted input is the same one with noise on its visual tokens, or another picture or prompt.
 */

import { z } from 'zod';
import type { FigurePanel } from '../../figures/drawings.ts';
import { f32, type Tensor } from '../../graph/dtype.ts';
import { changePicture, imagesOf } from '../../input/segments.ts';
import type { Reading } from '../../models/answer.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Random } from '../../random.ts';
import { nextToken } from '../next-token.ts';
import { mapsOnPictures } from '../on-pictures.ts';
import { swapStates } from '../swap.ts';
import { deviation } from '../visual-attribution.ts';
import {
  defineTool,
  type Found,
  fixed,
  groupsOf,
  keyOf,
  type Part,
  partsOf,
  patchNames,
  type Subject,
  type ToolRun,
} from './tool.ts';

/** Modules whose outputs can be restored. */
const modules = ['out', 'attn.out', 'mlp.out'] as const;
type Module = (typeof modules)[number];
const spoken: Record<Module, string> = { out: 'residual stream', 'attn.out': 'attention', 'mlp.out': 'MLP' };

/** The input with noise on its visual tokens, of a deviation that is a multiple of theirs. */
export function noisy({ batch, rewrite }: Reading, times: number, random: Random): Reading {
  const feeds = { ...batch.feeds };
  for (const name of Object.keys(feeds).filter((one) => one === 'visual' || /^deep/.test(one))) {
    const { data, shape } = feeds[name] as Tensor<'float32'>;
    // What deep layers are given is 0 at words, and stays so.
    const spread = times * deviation(data.filter((value) => value !== 0));
    const noise = random.normals(data.length, spread);
    feeds[name] = f32(
      data.map((value, i) => (value === 0 ? 0 : value + noise[i]!)),
      shape,
    );
  }
  return { batch: { ...batch, feeds }, rewrite };
}

/** Probabilities of a token when states of the clean run are put into the corrupted one: [modules][parts][layers]. */
export interface Restored {
  readonly clean: number;
  readonly corrupted: number;
  readonly restored: readonly (readonly (readonly number[])[])[];
}

/** Restores the states of each part of the input, after each layer and of each module. @throws Error when the inputs do not stand side by side */
export async function restore(
  vlm: Vlm,
  clean: Reading,
  corrupted: Reading,
  keyId: number,
  { kinds, parts, signal, onProgress }: { kinds: readonly Module[]; parts: readonly Part[] } & ToolRun,
): Promise<Restored> {
  if (clean.batch.length !== corrupted.batch.length)
    throw new Error(
      `the two inputs have ${clean.batch.length} and ${corrupted.batch.length} tokens; states can only be put at the same positions, so give inputs of equal length`,
    );
  const { layers } = vlm.decoder;
  const sites = kinds.flatMap((kind) => Array.from({ length: layers }, (_, i) => `layers.${i}.${kind}`));
  const states = await vlm.run({ from: 0, to: layers, read: sites }, clean.batch, {}, clean.rewrite);
  const probability = async (reading: Reading): Promise<number> =>
    (await nextToken(vlm, reading.batch, reading.rewrite)).probability(keyId);
  const total = kinds.length * parts.length * layers;
  let done = 0;
  const restored: number[][][] = [];
  for (const kind of kinds) {
    const perPart: number[][] = [];
    for (const { places } of parts) {
      const row: number[] = [];
      for (let layer = 0; layer < layers; layer++) {
        signal?.throwIfAborted();
        const site = `layers.${layer}.${kind}`;
        const rewrite = swapStates(corrupted, sites, { site, states: states[site] as Tensor<'float32'>, places });
        row.push(await probability({ ...corrupted, rewrite }));
        onProgress?.(++done, total);
      }
      perPart.push(row);
    }
    restored.push(perPart);
  }
  return { clean: await probability(clean), corrupted: await probability(corrupted), restored };
}

interface TraceOptions {
  readonly modules: 'all' | Module;
  readonly parts: 'words' | 'groups' | 'patches';
}

const common = {
  modules: z
    .enum(['all', ...modules])
    .default('all')
    .describe('whose outputs are restored: of the residual stream (out), attention, MLP, or all three'),
  parts: z
    .enum(['words', 'groups', 'patches'])
    .default('words')
    .describe('what is restored together: each word and the picture, the picture, the words and the last token, or each patch'),
};

function chosenParts({ vlm, reading }: Subject, { parts }: TraceOptions, averaged: boolean): Part[] {
  const sequence = reading.batch.sequences[0]!;
  const { picture, words, last } = groupsOf(sequence);
  if (parts === 'patches') return patchNames(sequence).map((name, i) => ({ name, places: [picture[i]!], kind: 'picture' }));
  if (parts === 'words' && !averaged) {
    const own = partsOf(vlm, sequence);
    const end = last[0]!;
    return [...own.filter(({ places }) => !places.includes(end)), { name: 'last token', places: last, kind: 'word' as const }];
  }
  const groups: Part[] = [
    { name: 'picture', places: picture, kind: 'picture' },
    { name: 'words', places: words, kind: 'word' },
    { name: 'last token', places: last, kind: 'word' },
  ];
  return groups.filter(({ places }) => places.length > 0);
}

/** Traces with one or several corrupted inputs, and says what it found. */
async function traced(
  subject: Subject,
  corrupted: readonly Reading[],
  options: TraceOptions,
  run: ToolRun,
  how: string,
): Promise<Found> {
  const { vlm, reading, asked } = subject;
  const key = await keyOf(subject);
  const kinds = options.modules === 'all' ? (options.parts === 'patches' ? (['out'] as const) : modules) : [options.modules];
  const parts = chosenParts(subject, options, run.averaged === true);
  if (parts.length === 0) throw new Error('the input has no picture, so there are no patches to restore');
  const all: Restored[] = [];
  for (const [i, one] of corrupted.entries())
    all.push(
      await restore(vlm, reading, one, key.id, {
        ...{ kinds, parts, signal: run.signal },
        onProgress: (done, total) => run.onProgress?.(i * total + done, corrupted.length * total),
      }),
    );
  const mean = (of: (one: Restored) => number): number => all.reduce((sum, one) => sum + of(one), 0) / all.length;
  const [clean, broken] = [mean((one) => one.clean), mean((one) => one.corrupted)];
  const gap = clean - broken;
  const share = kinds.map((_, k) =>
    parts.map((_, p) =>
      all[0]!.restored[k]![p]!.map((_, layer) =>
        Math.abs(gap) < 1e-6 ? 0 : (mean((one) => one.restored[k]![p]![layer]!) - broken) / gap,
      ),
    ),
  );
  const columns = Array.from({ length: vlm.decoder.layers }, (_, i) => `${i}`);
  const rows = kinds.flatMap((kind) => parts.map(({ name }) => (kinds.length === 1 ? name : `${spoken[kind]}: ${name}`)));
  const matrix = { rows, columns, values: share.flat(), what: 'share of the answer that is brought back' };
  const best = kinds.map((kind, k) => {
    const cells = parts.flatMap(({ name }, p) => share[k]![p]!.map((value, layer) => ({ name, layer, value })));
    const top = cells.reduce((a, b) => (b.value > a.value + 1e-9 ? b : a));
    return `${spoken[kind]}: most by “${top.name}” in layer ${top.layer} (${Math.round(100 * top.value)} %).`;
  });
  const panels: FigurePanel[] = [];
  const images = imagesOf(asked);
  if (options.parts === 'patches' && images.length > 0) {
    const rowsOfMaps = await mapsOnPictures(
      vlm,
      reading.batch.sequences[0]!,
      images,
      columns.map((layer, i) => ({ label: `Layer ${layer}`, values: share[0]!.map((row) => Math.max(0, row[i]!)) })),
    );
    const data = {
      rows: rowsOfMaps,
      title: 'What each patch brings back',
      scaleTitle: 'Share of the answer that is brought back',
    };
    panels.push({ kind: 'heat-maps', data });
  } else
    kinds.forEach((kind, k) => {
      const data = { rows: parts.map(({ name }) => name), columns, values: share[k]!, range: [0, 1] as const };
      panels.push({
        kind: 'matrix',
        data: {
          ...data,
          title: `Restored: ${spoken[kind]}`,
          columnTitle: 'Layer',
          scaleTitle: 'Share of the answer brought back',
        },
      });
    });
  return {
    key,
    said: [
      `Probability of “${key.text}”: ${clean.toFixed(3)} clean, ${broken.toFixed(3)} ${how}.`,
      ...(gap < 0.05 ? ['The corruption hardly changes the answer, so the shares say little.'] : best),
    ],
    table: {
      head: ['restored', ...columns],
      rows: matrix.values.map((row, i) => [rows[i]!, ...row.map((value) => fixed(value, 2))]),
    },
    matrix,
    data: {
      ...{ clean, corrupted: broken, layers: columns.map(Number) },
      restored: kinds.map((kind, k) => ({
        module: kind,
        parts: parts.map(({ name, places }, p) => ({ name, positions: places, share: share[k]![p] })),
      })),
    },
    panels,
  };
}

export const trace = defineTool({
  id: 'trace',
  summary: 'causal tracing: which states bring the answer back when the picture is drowned in noise',
  details:
    'Noise on the visual tokens takes the answer away. Then the states of the clean run are put back, one layer and one part of the input at a time, and the value is the share of the lost probability that comes back.',
  picture: true,
  ofPlaces: true,
  options: z.object({
    ...common,
    noise: z.number().gt(0).max(1000).default(3).describe('deviation of the noise, as a multiple of that of the visual tokens'),
    draws: z.int().min(1).max(1000).default(4).describe('noise draws that are averaged'),
  }),
  async run(subject, { noise, draws, ...options }, run) {
    const random = new Random(`${run.seed ?? 0}/trace`);
    const corrupted = Array.from({ length: draws }, (_, i) => noisy(subject.reading, noise, random.fork(i)));
    return traced(subject, corrupted, options, run, 'under noise');
  },
});

export const patch = defineTool({
  id: 'patch',
  summary: 'activation patching: which states carry the answer from one picture or prompt into another',
  details:
    'Asks about another picture (--against-image) or in other words (--against-prompt), where the answer is different. Then states of the first run are put into the other one, one layer and one part of the input at a time, and the value is the share of the probability of the first answer that comes with them. Both inputs must have the same number of tokens.',
  compares: 'must',
  ofPlaces: true,
  options: z.object(common),
  async run(subject, options, run) {
    const { asked, reading } = subject;
    const { image, prompt } = run.against ?? {};
    if (image === undefined && prompt === undefined)
      throw new Error('there is nothing to compare with; give another picture or another prompt');
    const pictured = image === undefined ? asked : changePicture(asked, image);
    if (prompt !== undefined && typeof pictured.prompt !== 'string')
      throw new Error('another prompt can be given for a bare prompt only, not for a conversation');
    const other = await subject.read(prompt === undefined ? pictured : { ...pictured, prompt });
    if (other.batch.length !== reading.batch.length)
      throw new Error(`the two inputs have ${reading.batch.length} and ${other.batch.length} tokens; they must have as many`);
    return traced(subject, [other], options, run, 'with the other input');
  },
});
