/**
 * The weights that an architecture reads, what each is for, and where they come from: floats as a checkpoint stores them, or matrices in blocks of
 * whole numbers, stored so or rounded when a program asks for them.
 */

import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { BLOCK, type BlockBits, blockFor, blockName, blockParts, blockShapes, quantizeBlocks } from '../files/blocks.ts';
import { FileChanged } from '../files/changed.ts';
import type { Checkpoint } from '../files/folder.ts';
import { toFloat16 } from '../files/half.ts';
import { isContiguous } from '../files/torch-pickle.ts';
import { sizeOf, type Tensor } from '../graph/dtype.ts';
import { input, type Node, nameOf, parameterOp, topological } from '../graph/index.ts';
import { Weights } from '../nn/weights.ts';
import type { BlockWeight, WeightLocation, WeightSource } from '../onnx/emit.ts';
import type { Architecture } from './architecture.ts';
import { placeInputs, walk } from './forward.ts';
import { Sites } from './sites.ts';
import { isRounded, type WeightType } from './weight-types.ts';

export type Part = 'vision' | 'embedding' | 'layers' | 'head';

export interface WeightUse {
  readonly shape: readonly number[];
  /** where it is read first */
  readonly part: Part;
  /** it is only ever the matrix of x W^T */
  readonly linear: boolean;
}

/** Every weight that an architecture reads. */
export function weightUses(architecture: Architecture): Map<string, WeightUse> {
  const { decoder } = architecture;
  const weights = new Weights();
  const { positions, bias } = placeInputs(decoder, undefined);
  const visual = architecture.vision(architecture.pixels(), weights, new Sites());
  const start = decoder.enter(decoder.embed(input('ids', ['b', 'l'], 'int64'), weights), positions, weights);
  const x = walk(decoder, 0, decoder.layers, start, { weights, sites: new Sites(), positions, bias });
  const logits = decoder.head(x, weights);
  const ends: [Part, Node][] = [
    ['vision', visual],
    ['embedding', start],
    ['layers', x],
    ['head', logits],
  ];
  const parts = new Map<string, Part>();
  for (const [part, end] of ends) {
    for (const node of topological([end])) if (node.op === parameterOp && !parts.has(nameOf(node))) parts.set(nameOf(node), part);
  }
  const nodes = topological([logits, visual]);
  const otherwise = new Set<string>();
  for (const { op, inputs, attributes } of nodes) {
    inputs.forEach((x, i) => {
      const matrix = op.name === 'matmul' && i === 1 && attributes.transB === true && attributes.transA !== true;
      if (x.op === parameterOp && !matrix) otherwise.add(nameOf(x));
    });
  }
  const leaves = topological([logits, ...weights.entries().values()]).filter((n) => n.op === parameterOp);
  return new Map(
    leaves.map((n): [string, WeightUse] => {
      const name = nameOf(n);
      const linear = n.rank === 2 && parts.has(name) && !otherwise.has(name);
      return [name, { shape: n.shape as number[], part: parts.get(name) ?? 'vision', linear }];
    }),
  );
}

/** Names and shapes of every weight that an architecture reads. */
export function weightShapes(architecture: Architecture): Map<string, readonly number[]> {
  return new Map([...weightUses(architecture)].map(([name, { shape }]) => [name, shape]));
}

/** How a matrix is rounded. */
export interface BlockShape {
  readonly bits: BlockBits;
  readonly block: number;
}

/**
 * How weights of a type in whole numbers are rounded: the decoder's layers, where nearly all weights are, to that type, the head and the picture's
 * encoder to 8 bits. Undefined: this weight keeps its floats.
 * @param longest most numbers that share a scale
 */
export function blocksOf(type: WeightType, { shape, part, linear }: WeightUse, longest = BLOCK): BlockShape | undefined {
  if (!isRounded(type) || !linear) return undefined;
  const bits = type === 'int4' && part === 'layers' ? 4 : 8;
  const block = blockFor(shape[1]!, bits, longest);
  return block === undefined ? undefined : { bits, block };
}

/** Floats of this many numbers and more are kept in half precision by types shorter than float32. */
const LARGE = 2 ** 16;
export const isLarge = (shape: readonly number[]): boolean => shape.length > 1 && sizeOf(shape) >= LARGE;

/** A stored matrix in blocks, or undefined when the checkpoint has this weight as floats. */
export function storedBlocks(checkpoint: Checkpoint, name: string): BlockShape | undefined {
  const data = blockName(name, 'data');
  if (checkpoint.has(name) || !checkpoint.has(data)) return undefined;
  const [, blocks, bytes] = checkpoint.place(data).entry.shape as [number, number, number];
  const perByte = checkpoint.place(blockName(name, 'zeros')).entry.shape[1]! === blocks ? 1 : 2;
  return { bits: perByte === 1 ? 8 : 4, block: bytes * perByte };
}

const dtypes = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const;

export interface SourceOptions {
  /** weights that are made from stored ones */
  derived?: ReadonlyMap<string, () => Tensor> | undefined;
  /** what weights are kept as; as they are stored when left out */
  type?: WeightType | undefined;
}

/**
 * Binds weights to their place on disk; what is stored in another type than a float is refused. Tensors of torch files that are not
 * contiguous are read into memory, and so is what a shorter type rounds.
 */
export function weightsOf(
  checkpoint: Checkpoint,
  uses: ReadonlyMap<string, WeightUse>,
  { derived = new Map(), type }: SourceOptions = {},
): WeightSource {
  // Hubs keep files elsewhere and link to them, but the engine refuses links that lead out of a folder.
  const real = new Map<string, string>();
  const realPath = (path: string): string => {
    const known = real.get(path) ?? realpathSync(path);
    real.set(path, known);
    return known;
  };
  const locate = (name: string, dtype: WeightLocation['dtype']): WeightLocation => {
    const { file, entry } = checkpoint.place(name);
    const { begin: offset, bytes, shape } = entry;
    return { file: realPath(file.path), offset, bytes, dtype, shape, check: file.check };
  };
  return (name): WeightLocation | Tensor | BlockWeight => {
    const made = derived.get(name)?.();
    if (made !== undefined) return made;
    const blocks = storedBlocks(checkpoint, name);
    if (blocks !== undefined) {
      const part = (which: (typeof blockParts)[number]): WeightLocation =>
        locate(blockName(name, which), which === 'scales' ? 'float32' : 'uint8');
      const shape = uses.get(name)?.shape ?? [];
      return { ...blocks, shape, parts: () => ({ data: part('data'), scales: part('scales'), zeros: part('zeros') }) };
    }
    const { file, entry } = checkpoint.place(name);
    // checkWeights let no other type pass
    const dtype = dtypes[entry.dtype as keyof typeof dtypes];
    const floats = (): Tensor<'float32'> => file.readTensor(entry, { as: 'float32' });
    const use = uses.get(name);
    const rounded = type === undefined || use === undefined ? undefined : blocksOf(type, use);
    if (rounded !== undefined) {
      const [rows, columns] = entry.shape as [number, number];
      const parts = () => {
        try {
          return { ...quantizeBlocks(floats().data, rows, columns, rounded.bits, rounded.block) };
        } catch (error) {
          if (error instanceof FileChanged) throw error;
          throw new Error(`${file.path}: ${name} cannot be rounded: ${(error as Error).message}`, { cause: error });
        }
      };
      return { ...rounded, shape: entry.shape, parts };
    }
    if (dtype === 'float32' && type !== undefined && type !== 'float32' && isLarge(entry.shape))
      return { dtype: 'float16', shape: entry.shape, data: toFloat16(floats().data) };
    if (!isContiguous(entry)) return floats();
    return locate(name, dtype);
  };
}

/** Checks that the checkpoint has every weight, as floats or in blocks, at the shape that the configuration asks for; all that do not fit are named. */
export function checkWeights(
  checkpoint: Checkpoint,
  shapes: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  derived: ReadonlyMap<string, unknown> = new Map(),
): void {
  const wrong: string[] = [];
  const read = new Set<string>();
  let missing = 0;
  const compare = (name: string, shape: readonly number[]): void => {
    read.add(name);
    if (!checkpoint.has(name)) {
      missing++;
      wrong.push(`${name} is missing`);
      return;
    }
    const { file, entry } = checkpoint.place(name);
    if (entry.shape.join() === shape.join()) return;
    wrong.push(
      `${name} is [${entry.shape.join(', ')}] in ${basename(file.path)}, the configuration asks for [${shape.join(', ')}]`,
    );
  };
  for (const [name, { shape }] of shapes) {
    if (derived.has(name)) continue;
    if (!checkpoint.has(name) && checkpoint.has(blockName(name, 'data'))) {
      for (const part of ['scales', 'zeros'] as const) {
        const own = blockName(name, part);
        if (!checkpoint.has(own)) compare(own, []);
      }
      if (!blockParts.every((part) => checkpoint.has(blockName(name, part)))) continue;
      const { bits, block } = storedBlocks(checkpoint, name)!;
      const parts = blockShapes(shape as [number, number], bits, block);
      for (const part of blockParts) compare(blockName(name, part), parts[part]);
      continue;
    }
    compare(name, shape);
    const place = checkpoint.has(name) ? checkpoint.place(name) : undefined;
    if (place !== undefined && !(place.entry.dtype in dtypes))
      wrong.push(
        `${name} is stored as ${place.entry.dtype} in ${basename(place.file.path)}; weights must be ${Object.keys(dtypes).join(', ')}`,
      );
  }
  if (wrong.length === 0) return;
  // What the model would not read tells which part is of another model.
  const strangers = missing === 0 ? [] : checkpoint.names().filter((name) => !shapes.has(name) && !read.has(name));
  const hint = strangers.length === 0 ? '' : `\n  not read by this model: ${byLayer(strangers, 8).join(', ')}`;
  const what = `${wrong.length} weights do not fit; are all its parts of one model?`;
  throw new Error(`${checkpoint.dir}: ${what}\n  ${byLayer(wrong, 60).join('\n  ')}${hint}`);
}

/** Lines that differ in the number of a layer only, as one: `layers.{0,2,4}.norm`. */
function byLayer(lines: readonly string[], most: number): string[] {
  const groups = new Map<string, number[]>();
  for (const line of lines) {
    const layer = /\.(\d+)\./.exec(line)?.[1];
    const key = line.replace(/\.\d+\./, '.*.');
    groups.set(key, [...(groups.get(key) ?? []), ...(layer === undefined ? [] : [Number(layer)])]);
  }
  const numbers = (n: readonly number[]): string => {
    if (n.length < 4) return n.join();
    const inOrder = n.every((layer, i) => layer === n[0]! + i);
    return inOrder ? `${n[0]}..${n.at(-1)}` : `${n.slice(0, 3).join()},..${n.at(-1)}`;
  };
  const out = [...groups].map(([key, n]) => (n.length < 2 ? key.replace('*', n.join()) : key.replace('*', `{${numbers(n)}}`)));
  return out.length <= most ? out : [...out.slice(0, most), `... and ${out.length - most} more`];
}
