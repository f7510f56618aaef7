/** Activations by site name: any named place of the vision part and of the decoder, for one input. */

import { type Dim, f32, input, type Node, type Tensor } from '../graph/index.ts';
import { Sites } from '../models/sites.ts';
import type { Rewrite, RgbImage, Vlm } from '../models/vlm.ts';
import { Weights } from '../nn/weights.ts';

export interface SiteNames {
  /** none for an input without a picture */
  vision: string[];
  decoder: string[];
}

/** The sites that an input passes, in their order. */
export function siteNames(vlm: Vlm, image: boolean): SiteNames {
  const { architecture, decoder } = vlm;
  const vision = new Sites();
  if (image) architecture.vision(input('pixels', ['b', 3, ...architecture.imageSize]), new Weights(), vision);
  const sites = new Sites();
  const weights = new Weights();
  const positions = input('positions', ['b', 'l'], 'int64');
  const bias = input('bias', ['b', 1, 'l', 'l']);
  let x: Node = input('x', ['b', 'l', decoder.hidden]);
  for (let i = 0; i < decoder.layers; i++) x = decoder.layer(i, x, { weights, sites, positions, bias });
  return { vision: vision.names(), decoder: ['embeddings', 'decoder.in', ...sites.names(), 'logits'] };
}

/**
 * Names that fit any of the patterns; `*` stands for anything without a dot (`layers.*.out` is the residual stream of every layer), `**` for anything.
 * @throws Error that shows the kinds of sites when a pattern fits none
 */
export function matchSites(names: readonly string[], patterns: readonly string[]): string[] {
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
      throw new Error(`no site is named ${JSON.stringify(pattern)}; there are: ${kinds.join(', ')}`);
    }
    for (const name of fits) found.add(name);
  }
  return names.filter((name) => found.has(name));
}

export interface TraceInput {
  prompt: string;
  image?: RgbImage | undefined;
  /** teacher-forced after the prompt */
  target?: string;
}

export interface Trace {
  /** by site name; the batch axis of one is left out */
  activations: Map<string, Tensor<'float32'>>;
  /** −1 at visual tokens */
  tokenIds: readonly number[];
  visualSpan: readonly [number, number] | undefined;
}

/** Reads the sites that fit the patterns. */
export async function trace(
  vlm: Vlm,
  { prompt, image, target }: TraceInput,
  patterns: readonly string[],
  rewrite?: Rewrite,
): Promise<Trace> {
  const all = siteNames(vlm, image !== undefined);
  const wanted = matchSites([...all.vision, ...all.decoder], patterns);
  const inVision = new Set(all.vision);
  const [vision, decoder] = [wanted.filter((name) => inVision.has(name)), wanted.filter((name) => !inVision.has(name))];
  const activations = new Map<string, Tensor<'float32'>>();
  const keep = (name: string, t: Tensor): void => {
    activations.set(name, f32(t.data as Float32Array, t.shape.slice(1)));
  };
  if (image !== undefined && vision.length > 0) {
    const out = await visionSites(vlm, image, vision);
    for (const name of vision) keep(name, out[name]!);
  }
  const sequence = vlm.layout(prompt, image !== undefined, target);
  if (decoder.length > 0) {
    const batch = await vlm.batch([sequence], [image]);
    const deepest = Math.max(-1, ...decoder.map((name) => Number(/^layers\.(\d+)\./.exec(name)?.[1] ?? -1)));
    const to = decoder.includes('logits') ? vlm.decoder.layers : deepest + 1;
    const out = await vlm.run({ from: 0, to, outputs: decoder }, batch, {}, rewrite);
    for (const name of decoder) keep(name, out[name]!);
  }
  return { activations, tokenIds: sequence.ids, visualSpan: sequence.visualSpan };
}

async function visionSites(vlm: Vlm, image: RgbImage, names: readonly string[]): Promise<Record<string, Tensor>> {
  const { architecture, processor } = vlm;
  const program = await vlm.program(`vision|${names.join()}`, () => {
    const shape: Dim[] = ['b', 3, ...architecture.imageSize];
    const sites = new Sites();
    architecture.vision(input('pixels', shape), new Weights(), sites);
    return Object.fromEntries(names.map((name) => [name, sites.get(name)]));
  });
  const pixels = processor(image);
  return program.run({ pixels: { ...pixels, shape: [1, ...pixels.shape] } });
}
