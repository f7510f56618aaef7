/** Activations by site name: any named place of the vision part and of the decoder, for one input. */

import { add, f32, input, matmul, mul, type Node, softmax, type Tensor } from '../graph/index.ts';
import type { Asked } from '../input/segments.ts';
import { placeInputs } from '../models/forward.ts';
import type { Rewrite } from '../models/rewrite.ts';
import type { Run } from '../models/sequence.ts';
import { biasOf } from '../models/sight.ts';
import { type SiteNames, siteNames as sitesOf } from '../models/site-names.ts';
import { readVision } from '../models/vision.ts';
import type { Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';

/** The sites that an input passes, in their order. @param image whether it has a picture */
export function siteNames(vlm: Vlm, image: boolean): SiteNames {
  const { vision, decoder } = sitesOf(vlm.architecture);
  const named = decoder.flatMap((name) => {
    const layer = /^layers\.(\d+)\.attn\.in$/.exec(name)?.[1];
    return layer === undefined ? [name] : [name, ...derived.map((kind) => `layers.${layer}.attn.${kind}`)];
  });
  return { vision: image ? vision : [], decoder: named };
}

/** What is computed of `layers.{i}.attn.in` when it is asked for: queries [h, l, k] with positions applied, and probabilities [h, queries, keys]. */
const derived = ['query', 'probabilities'] as const;
const isDerived = /^layers\.(\d+)\.attn\.(query|probabilities)$/;

function derivedGraph({ decoder }: Vlm, layer: number, rewrite: Rewrite | undefined): Record<string, Node> {
  const { positions, bias } = placeInputs(decoder, undefined, 1);
  const state = input('state', [1, 'l', decoder.hidden]);
  const { query, key } = decoder.project(layer, state, positions, new Weights(rewrite?.replace));
  const scores = matmul(mul(query, decoder.scale), key, false, true);
  return { query, probabilities: softmax(add(scores, biasOf(decoder, layer, bias))) };
}

/**
 * Names that fit any of the patterns; `*` stands for anything without a dot (`layers.*.out` is the residual stream of every layer), `**` for anything.
 * @throws Error that shows the kinds of sites when a pattern fits none
 */
export function matchSites(names: readonly string[], patterns: readonly string[], hasPicture = true): string[] {
  const found = new Set<string>();
  for (const pattern of patterns) {
    const escaped = pattern
      .split('**')
      .map((part) =>
        part
          .split('*')
          .map((text) => text.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
          .join('[^.]*'),
      )
      .join('.*');
    const fits = names.filter((name) => new RegExp(`^${escaped}$`).test(name));
    if (fits.length === 0) {
      const kinds = [...new Set(names.map((name) => name.replace(/\.\d+\./, '.*.')))];
      throw new Error(
        `no site is named ${JSON.stringify(pattern)}; ${hasPicture ? 'there are' : 'without a picture there are'}: ${kinds.join(', ')}`,
      );
    }
    for (const name of fits) found.add(name);
  }
  return names.filter((name) => found.has(name));
}

export interface TraceInput extends Asked {
  /** teacher-forced after the prompt */
  readonly target?: string;
}

export interface Trace {
  /** by site name; the batch axis of one is left out. Sites of the image encoder are of the first picture */
  activations: Map<string, Tensor<'float32'>>;
  /** −1 at visual tokens */
  tokenIds: readonly number[];
  /** runs [start, end) of each picture's visual tokens */
  spans: readonly (readonly Run[])[];
}

/** Reads the sites that fit the patterns. */
export async function trace(
  vlm: Vlm,
  { target, ...asked }: TraceInput,
  patterns: readonly string[],
  rewrite?: Rewrite,
): Promise<Trace> {
  const sequence = vlm.layout(asked, target);
  const [picture] = sequence.pictures;
  const all = siteNames(vlm, picture !== undefined);
  const wanted = matchSites([...all.vision, ...all.decoder], patterns, picture !== undefined);
  const inVision = new Set(all.vision);
  const [vision, decoder] = [wanted.filter((name) => inVision.has(name)), wanted.filter((name) => !inVision.has(name))];
  const activations = new Map<string, Tensor<'float32'>>();
  const keep = (name: string, t: Tensor): void => {
    activations.set(name, f32(t.data as Float32Array, t.shape.slice(1)));
  };
  if (picture?.prepared !== undefined && vision.length > 0) {
    const out = await readVision(vlm, picture.prepared, vision);
    for (const name of vision) keep(name, out[name]!);
  }
  if (decoder.length > 0) {
    const batch = await vlm.batch([sequence]);
    const deepest = Math.max(-1, ...decoder.map((name) => Number(/^layers\.(\d+)\./.exec(name)?.[1] ?? -1)));
    const to = decoder.includes('logits') ? vlm.decoder.layers : deepest + 1;
    const inputOf = (name: string): string => name.replace(isDerived, 'layers.$1.attn.in');
    const out = await vlm.run({ from: 0, to, read: [...new Set(decoder.map(inputOf))] }, batch, {}, rewrite);
    const replace = rewrite !== undefined && rewrite.replace.size > 0 ? rewrite : undefined;
    for (const name of decoder) {
      const [, layer, kind] = isDerived.exec(name) ?? [];
      const read = out[inputOf(name)]!;
      if (layer === undefined || kind === undefined) keep(name, read);
      else {
        const program = await vlm.program(derivedGraph, Number(layer), replace);
        keep(name, (await program.run({ ...batch.feeds, ...rewrite?.feeds, state: read }))[kind]!);
      }
    }
  }
  return { activations, tokenIds: sequence.ids, spans: sequence.spans };
}
