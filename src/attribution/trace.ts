/** Activations by site name: any named place of the vision part and of the decoder, for one input. */

import { f32, type Tensor } from '../graph/index.ts';
import type { Asked } from '../input/segments.ts';
import type { Rewrite } from '../models/rewrite.ts';
import type { Run } from '../models/sequence.ts';
import { type SiteNames, siteNames as sitesOf } from '../models/site-names.ts';
import { readVision } from '../models/vision.ts';
import type { Vlm } from '../models/vlm.ts';

/** The sites that an input passes, in their order. @param image whether it has a picture */
export function siteNames(vlm: Vlm, image: boolean): SiteNames {
  const { vision, decoder } = sitesOf(vlm.architecture);
  return { vision: image ? vision : [], decoder };
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
    const out = await vlm.run({ from: 0, to, read: decoder }, batch, {}, rewrite);
    for (const name of decoder) keep(name, out[name]!);
  }
  return { activations, tokenIds: sequence.ids, spans: sequence.spans };
}
