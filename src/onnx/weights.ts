/** The weights of a program as ONNX initializers: where they lie on disk, in memory, in half precision, or in blocks of whole numbers. */

import { showShape } from '../graph/dim.ts';
import type { DType, Tensor } from '../graph/dtype.ts';
import type { Node, StoredWeight } from '../graph/node.ts';
import { onnxType } from '../graph/ops/elementwise.ts';
import { type ExternalData, type InitializerProto, type NodeProto, tensorBytes } from './proto.ts';

/** Where a weight lies: an absolute file, byte offset and length, stored dtype. */
export interface WeightLocation {
  file: string;
  offset: number;
  bytes: number;
  dtype: DType | 'bfloat16';
  shape: readonly number[];
  /** asked before and after every run, since the file stays mapped: throws when it is no longer the file that was opened */
  check?: () => void;
}

/**
 * A matrix [out, in] in whole numbers: runs of `block` along a row share a scale and a zero point, w = scale (q − zero). Several numbers of less
 * than eight bits share a byte, lowest bits first. `in` is a multiple of `block`, and a row of zero points fills whole bytes.
 */
export interface BlockWeight {
  readonly bits: 4 | 8;
  readonly block: number;
  readonly shape: readonly number[];
  /** uint8 [out, in / block, block × bits / 8]; float32 [out, in / block]; uint8 [out, in / block × bits / 8]. Read when a program is made. */
  parts(): Record<'data' | 'scales' | 'zeros', WeightLocation | Tensor>;
}

/** A weight by name: in a file, in memory, in blocks, or undefined: given at every run. */
export type WeightSource = (name: string) => WeightLocation | Tensor | BlockWeight | undefined;

export interface EmitOptions {
  /** weights in half precision and in blocks become floats at each use, so that no copy outlives its use; otherwise once */
  castPerUse?: boolean;
}

const BFLOAT16 = 16;
const UINT8 = onnxType.uint8;
const UINT4 = 21;

const isBlocks = (source: WeightLocation | Tensor | BlockWeight): source is BlockWeight => 'parts' in source;

/** @throws Error when a weight has another shape than a node declares */
export function checkShape(name: string, source: WeightLocation | Tensor | BlockWeight | undefined, node: Node): void {
  if (source === undefined || showShape(source.shape) === showShape(node.shape)) return;
  throw new Error(`weight ${name}: the model needs ${showShape(node.shape)}, the checkpoint has ${showShape(source.shape)}`);
}

/** The innermost folder that holds all of these absolute paths: the engine takes one folder and paths below it. */
function commonFolder(files: readonly string[]): string | undefined {
  let common: string[] | undefined;
  for (const folder of new Set(files.map((file) => file.slice(0, file.lastIndexOf('/'))))) {
    const parts = folder.split('/');
    if (common === undefined) common = parts;
    else while (common.some((part, i) => part !== parts[i])) common = common.slice(0, -1);
  }
  return common && (common.join('/') || '/');
}

/** What weights need of the graph that is being written. */
interface Writer {
  readonly initializers: InitializerProto[];
  node(op: string, inputs: readonly string[], attributes?: NodeProto['attributes']): string;
  /** a node of its own, even where an equal one exists */
  freshNode(op: string, inputs: readonly string[], attributes?: NodeProto['attributes']): string;
}

/** Writes each weight once, in the form that a use asks for. */
export class WeightEmitter {
  readonly #emitter: Writer;
  readonly #bound: ReadonlyMap<string, WeightLocation | Tensor | BlockWeight>;
  readonly #parts = new Map<string, ReturnType<BlockWeight['parts']>>();
  readonly #options: EmitOptions;
  readonly #written = new Set<string>();
  readonly folder: string | undefined;
  /** of every file that weights lie in */
  readonly checks: ReadonlySet<() => void>;

  constructor(emitter: Writer, bound: ReadonlyMap<string, WeightLocation | Tensor | BlockWeight>, options: EmitOptions) {
    this.#emitter = emitter;
    this.#bound = bound;
    this.#options = options;
    const pieces = [...bound].flatMap(([name, source]) => {
      if (!isBlocks(source)) return [source];
      const parts = source.parts();
      this.#parts.set(name, parts);
      return Object.values(parts);
    });
    this.checks = new Set(pieces.flatMap((piece) => ('data' in piece || piece.check === undefined ? [] : [piece.check])));
    this.folder = commonFolder(pieces.flatMap((piece) => ('data' in piece ? [] : [piece.file])));
  }

  /** @throws Error when the weight has another shape than the node declares */
  check(name: string, node: Node): void {
    checkShape(name, this.#bound.get(name), node);
  }

  /** As the node declares it. */
  value(name: string, node: Node): string {
    const source = this.#bound.get(name);
    if (source === undefined) return name;
    if (isBlocks(source)) return this.#floats(name, source);
    this.#write(name, source, this.#typeOf(source), source.shape);
    if (source.dtype === node.dtype) return name;
    const to = { to: onnxType[node.dtype] };
    return this.#options.castPerUse ? this.#emitter.freshNode('Cast', [name], to) : this.#emitter.node('Cast', [name], to);
  }

  has(name: string): boolean {
    return this.#bound.has(name);
  }

  /** In half precision, whatever it is stored as. */
  half(name: string, node: Node): string {
    const source = this.#bound.get(name)!;
    if (isBlocks(source)) return this.#floats(name, source, true);
    this.#write(name, source, this.#typeOf(source), source.shape);
    return source.dtype === 'float16' || node.dtype !== 'float32' ? name : this.#halved(name);
  }

  #halved(name: string): string {
    return this.#emitter.node('Cast', [name], { to: onnxType.float16 });
  }

  /** @param half the use computes in half precision: scales are given in it */
  stored(name: string, node: Node, half = false): StoredWeight | undefined {
    const source = this.#bound.get(name);
    if (source === undefined) return undefined;
    if (!isBlocks(source)) {
      if (source.dtype === node.dtype || node.dtype !== 'float32') return undefined;
      this.#write(name, source, this.#typeOf(source), source.shape);
      return { form: 'half', value: name };
    }
    const { data, scales, zeros } = this.#parts.get(name)!;
    const [rows, columns] = source.shape as [number, number];
    const blocks = columns / source.block;
    const written = this.#write(`${name}.scales`, scales, onnxType.float32, [rows, blocks]);
    return {
      form: 'blocks',
      bits: source.bits,
      block: source.block,
      data: this.#write(`${name}.blocks`, data, UINT8, [rows, blocks, (source.block * source.bits) / 8]),
      scales: half ? this.#halved(written) : written,
      zeros: this.#write(`${name}.zeros`, zeros, UINT8, [rows, (blocks * source.bits) / 8]),
    };
  }

  /** The same bytes as `stored`, as the types of DequantizeLinear. */
  #floats(name: string, { shape, block, bits }: BlockWeight, half = false): string {
    const { data, scales, zeros } = this.#parts.get(name)!;
    const [rows, columns] = shape as [number, number];
    const type = bits === 4 ? UINT4 : UINT8;
    const scale = this.#write(`${name}.scales`, scales, onnxType.float32, [rows, columns / block]);
    const emit = this.#options.castPerUse ? this.#emitter.freshNode : this.#emitter.node;
    return emit.call(
      this.#emitter,
      'DequantizeLinear',
      [
        this.#write(`${name}.numbers`, data, type, shape),
        half ? this.#halved(scale) : scale,
        this.#write(`${name}.origins`, zeros, type, [rows, columns / block]),
      ],
      { axis: 1, block_size: block },
    );
  }

  #typeOf({ dtype }: WeightLocation | Tensor): number {
    return dtype === 'bfloat16' ? BFLOAT16 : onnxType[dtype];
  }

  #write(name: string, source: WeightLocation | Tensor, type: number, shape: readonly number[]): string {
    if (this.#written.has(name)) return name;
    this.#written.add(name);
    const external = (at: WeightLocation): ExternalData => ({
      location: at.file.slice(this.folder === '/' ? 1 : this.folder!.length + 1),
      offset: at.offset,
      bytes: at.bytes,
    });
    this.#emitter.initializers.push({ name, type, shape, data: 'data' in source ? tensorBytes(source) : external(source) });
    return name;
  }
}
