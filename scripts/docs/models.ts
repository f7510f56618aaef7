/** Tables of what a backbone is, read off its architecture. */
import { veadLayer } from '../../lab/recipes.ts';
import { canvas } from '../../lab/world/scene.ts';
import { suggestedLayer, tracedLayers } from '../../src/editors/vead/vead.ts';
import type { Checkpoint } from '../../src/files/folder.ts';
import { usualTokens } from '../../src/models/architecture.ts';
import { builtInModels, loadModel } from '../../src/models/load.ts';
import { fastestWithin, gigabytes, numbersOf } from '../../src/models/memory.ts';
import { modelSize, sizeAs } from '../../src/models/size.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import type { WeightType } from '../../src/models/weight-types.ts';
import { weightUses } from '../../src/models/weights.ts';
import { modernShapes } from '../modern-shapes.ts';
import { table } from './markdown.ts';
import { type Family, families, largeOf, miniOf, sizesOnly } from './published.ts';

/** Of pictures of any size, those of a picture of the mini world. */
function pictureFacts({ architecture, processor }: Vlm): [string, string][] {
  const { fixed } = architecture;
  const { count, grid } = fixed ?? processor({ width: canvas, height: canvas, data: new Uint8Array(3 * canvas ** 2) });
  return [
    ['picture', fixed ? `${fixed.size.join(' x ')} pixels` : `any size; here ${canvas} x ${canvas} pixels`],
    ['patches', fixed ? grid.join(' x ') : `${grid.join(' x ')}, each of 2 x 2`],
    ['visual tokens', String(count)],
  ];
}

function facts(vlm: Vlm): [string, string][] {
  const { decoder } = vlm;
  const layer = veadLayer(vlm);
  const traced = tracedLayers(vlm, layer);
  return [
    ...pictureFacts(vlm),
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

/** Nothing is on disk: weights count as floats, or as whole numbers where a type asks for them. */
const nothing: Pick<Checkpoint, 'has'> = { has: () => false };

/** Published sizes of modern families: what they are, and what they take of memory on a machine of 16 GB. */
function modernSizes(): string {
  const memory = 16e9;
  const rows = Object.values(modernShapes).map((make) => {
    const { hub, architecture } = make();
    const uses = weightUses(architecture);
    const sizeIn = (type: WeightType) => sizeAs(modelSize(architecture, uses, nothing as Checkpoint, type), type);
    const answering = (type: WeightType): string => {
      const { bytes, residency } = fastestWithin(sizeIn(type), memory);
      return `${gigabytes(bytes)}, ${residency}`;
    };
    const { vision, decoder } = sizeIn('float16');
    const layer = suggestedLayer(sizesOnly(hub, architecture));
    return [
      `\`${hub}\``,
      `${((numbersOf(vision) + numbersOf(decoder)) / 1e9).toFixed(2)}`,
      `${architecture.decoder.layers} × ${architecture.decoder.hidden}`,
      String(usualTokens(architecture)),
      gigabytes(vision.bytes + decoder.bytes),
      answering('float16'),
      answering('int4'),
      String(layer),
    ];
  });
  return table(
    ['on the hub', '10⁹ weights', 'decoder', 'visual tokens', 'on disk', 'answers, as stored', 'answers, int4', "VEAD's layer"],
    rows,
  );
}

/** The sizes of a family by its name, of all minis as `mini-world`, and of the families of today as `modern`. */
export function sizesTable(name: string): string {
  if (name === 'modern') return modernSizes();
  const family = families.find(({ id }) => id === name);
  if (family !== undefined) return sizes(family);
  const all = builtInModels.map((name) => facts(loadModel(name)));
  return table(
    ['', ...builtInModels],
    all[0]!.map(([fact], i) => [fact, ...all.map((rows) => rows[i]![1])]),
  );
}
