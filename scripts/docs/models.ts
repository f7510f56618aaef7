/** Tables of what a backbone is, read off its architecture. */
import { veadLayer } from '../../lab/recipes.ts';
import { tracedLayers } from '../../src/editors/vead/vead.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { table } from './markdown.ts';
import { type Family, families, largeOf, miniOf } from './published.ts';

function facts(vlm: Vlm): [string, string][] {
  const { architecture, decoder } = vlm;
  const layer = veadLayer(vlm);
  const traced = tracedLayers(vlm, layer);
  return [
    ['picture', `${architecture.fixed!.size.join(' x ')} pixels`],
    ['patches', architecture.fixed!.grid.join(' x ')],
    ['visual tokens', String(architecture.fixed!.count)],
    ['decoder layers', String(decoder.layers)],
    ['hidden size', String(decoder.hidden)],
    ['heads', `${decoder.heads} of width ${decoder.headWidth}`],
    ['vocabulary', decoder.vocabulary.toLocaleString('en')],
    ['longest input', `${decoder.maxPositions} tokens`],
    ["VEAD's insert layer", String(layer)],
    ['traced layers', `${traced[0]} to ${traced.at(-1)}`],
  ];
}

function sizes(family: Family): string {
  const [small, large] = [facts(miniOf(family)), facts(largeOf(family))];
  return table(
    ['', family.mini, family.large],
    small.map(([name, value], i) => [name, value, large[i]![1]]),
  );
}

/** The sizes of a family by its name, and of all minis as `mini-world`. */
export function sizesTable(name: string): string {
  const family = families.find(({ id }) => id === name);
  if (family !== undefined) return sizes(family);
  const all = families.map((one) => facts(miniOf(one)));
  return table(
    ['', ...families.map(({ mini }) => mini)],
    all[0]!.map(([fact], i) => [fact, ...all.map((rows) => rows[i]![1])]),
  );
}
