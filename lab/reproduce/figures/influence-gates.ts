/** The influence mapper's output on any picture under an edit (VisEdit Eq. 15): one gate in (0, 1) per visual token. */

import { onPictures } from '../../../src/attribution/on-pictures.ts';
import type { Edit, EditorWeights } from '../../../src/editors/editor.ts';
import { type AdapterShape, adapterShapeOf, adapterShapes, influenceMapper } from '../../../src/editors/vead/adapter.ts';
import { f32, input, type Node, sigmoid, type Tensor } from '../../../src/graph/index.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import { visualPlaces } from '../../../src/models/sequence.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import { Weights } from '../../../src/nn/weights.ts';

/** Gates [v] on a picture. What the picture is asked does not matter: visual tokens stand before the words. */
export async function influenceGates(vlm: Vlm, weights: EditorWeights, edit: Edit, image: RgbImage): Promise<number[]> {
  const { layer, heads } = weights.settings as { layer: number; heads: number };
  const shape = adapterShapeOf(weights.tensors, heads);
  const d = vlm.decoder.hidden;
  const site = `layers.${layer}.out`;
  const sequence = vlm.layout({ prompt: edit.request.prompt, image });
  const states = (await vlm.run({ from: 0, to: layer + 1, read: [site] }, await vlm.batch([sequence])))[
    site
  ] as Tensor<'float32'>;
  const program = await vlm.program(gateGraph, shape);
  const places = visualPlaces(sequence);
  const end = edit.settings.promptEnd as number;
  const { gates } = await program.run({
    ...Object.fromEntries([...weights.tensors].filter(([name]) => isMapper(name))),
    visual: f32(Float32Array.from(places.flatMap((place) => [...states.data.subarray(place * d, (place + 1) * d)])), [
      1,
      places.length,
      d,
    ]),
    end: f32(edit.tensors.get('signal')!.data.slice(end * d, (end + 1) * d), [1, d]),
  });
  return Array.from(gates!.data as Float32Array);
}

function gateGraph({ decoder }: Vlm, shape: AdapterShape): Record<string, Node> {
  const d = decoder.hidden;
  const w = new Weights();
  for (const [name, dims] of adapterShapes(shape)) if (isMapper(name)) w.bind(name, input(name, dims));
  return { gates: sigmoid(influenceMapper(w, shape, input('visual', ['b', 'v', d]), input('end', ['b', d]))) };
}

const isMapper = (name: string): boolean => name.startsWith('influence_mapper.');

/** Gates as values of the picture's patches; where several tokens look at a patch, their mean weighted by how much they look. */
export async function gatesOnPicture(vlm: Vlm, image: RgbImage, gates: readonly number[]): Promise<number[]> {
  const toPatches = await onPictures(vlm, vlm.layout({ prompt: 'x', image }));
  const even = toPatches(gates.map(() => 1))[0]!.values;
  return toPatches(gates)[0]!.values.map((value, i) => (even[i]! > 0 ? value / even[i]! : 0));
}
