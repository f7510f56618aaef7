/** Names of the sites that an input passes. */

import { input } from '../graph/index.ts';
import { Weights } from '../nn/weights.ts';
import type { Architecture, Decoder } from './architecture.ts';
import { placeInputs, walk } from './forward.ts';
import { Sites } from './sites.ts';

/** Of one decoder layer, in their order. */
export function sitesOfLayer(decoder: Decoder, layer: number): string[] {
  const sites = new Sites();
  const { positions, bias } = placeInputs(decoder, undefined);
  walk(decoder, layer, layer + 1, input('hidden', ['b', 'l', decoder.hidden]), {
    weights: new Weights(),
    sites,
    positions,
    bias,
  });
  return sites.names();
}

export interface SiteNames {
  /** of the image encoder and what leads to the visual tokens */
  readonly vision: readonly string[];
  readonly decoder: readonly string[];
}

/** The sites of a family, in their order. */
export function siteNames(architecture: Architecture): SiteNames {
  const vision = new Sites();
  architecture.vision(architecture.pixels(), new Weights(), vision);
  const { decoder } = architecture;
  const layers = Array.from({ length: decoder.layers }, (_, i) => sitesOfLayer(decoder, i)).flat();
  return { vision: vision.names(), decoder: ['embeddings', 'decoder.in', ...layers, 'logits'] };
}
