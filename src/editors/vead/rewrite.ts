/** An edit of VEAD as a rewrite of the model: at the output of layer l_e, the visual tokens pass through the adapter with the edit's signal. */

import { f32, i64, input, type Node, type Tensor } from '../../graph/index.ts';
import { defineRewrite, type Rewrite } from '../../models/rewrite.ts';
import type { Patch } from '../../models/sites.ts';
import { readVisual, writeVisual } from '../../models/spans.ts';
import { Weights } from '../../nn/weights.ts';
import type { Edit } from '../editor.ts';
import { type AdapterParts, type AdapterShape, adapterShapeOf, adapterShapes, visualEditAdapter } from './adapter.ts';

/** The adapter that an edit acts through. */
export function adapterOf({ weights }: Edit): {
  shape: AdapterShape;
  parts: AdapterParts;
  layer: number;
  weights: ReadonlyMap<string, Tensor<'float32'>>;
} {
  const { settings, tensors } = weights!;
  const { layer, heads, influenceMapper, crossAttention } = settings;
  return {
    shape: adapterShapeOf(tensors, heads as number),
    parts: { influenceMapper: influenceMapper !== false, crossAttention: crossAttention !== false },
    layer: layer as number,
    weights: tensors,
  };
}

/** The rewrite of one batch: row i under edits[i]. All edits share one adapter. */
export function veadRewrite(edits: readonly Edit[], tag = ''): Rewrite {
  const { shape, parts, layer, weights } = adapterOf(edits[0]!);
  const d = shape.hidden;
  const n = Math.max(...edits.map((e) => e.tensors.get('signal')!.shape[0]!));
  const b = edits.length;
  const signal = new Float32Array(b * n * d);
  const bias = new Float32Array(b * n);
  const ends: number[] = [];
  edits.forEach((e, i) => {
    const t = e.tensors.get('signal')!;
    signal.set(t.data, i * n * d);
    bias.fill(-1e9, i * n + t.shape[0]!, (i + 1) * n);
    ends.push(i * n + (e.settings.promptEnd as number));
  });
  const prefix = `vead${tag}.`;
  return adapted(
    { prefix, layer, shape, parts },
    {
      [`${prefix}signal`]: f32(signal, [b, n, d]),
      [`${prefix}bias`]: f32(bias, [b, n]),
      [`${prefix}ends`]: i64(ends, [b]),
      ...Object.fromEntries([...weights].map(([name, t]) => [prefix + name, t])),
    },
  );
}

interface Adapted {
  /** of the names of its inputs */
  readonly prefix: string;
  readonly layer: number;
  readonly shape: AdapterShape;
  readonly parts: AdapterParts;
}

const adapted = defineRewrite(({ prefix, layer, shape, parts }: Adapted) => {
  const patch: Patch = (x: Node, spans) => {
    const w = new Weights();
    // The adapter's weights are inputs of the run: one compiled program serves every trained adapter of this shape.
    for (const [name, dims] of adapterShapes(shape)) w.bind(name, input(`${prefix}${name}`, dims));
    const rows = x.dim(0);
    const length = `${prefix}n`.replace(/\W/g, '_');
    const given = {
      signal: input(`${prefix}signal`, [rows, length, shape.hidden]),
      bias: input(`${prefix}bias`, [rows, length]),
      ends: input(`${prefix}ends`, [rows], 'int64'),
    };
    return writeVisual(x, visualEditAdapter(w, shape, readVisual(x, spans!), given, parts).output, spans!);
  };
  return { patches: (image) => new Map(image ? [[`layers.${layer}.out`, patch]] : []) };
});
