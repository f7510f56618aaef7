/** A compiled program: a graph that ONNX Runtime executes. Platform files (node.ts, web.ts) supply the engine. */

import { type Dim, showShape } from '../graph/dim.ts';
import type { DType, Tensor } from '../graph/dtype.ts';
import type { Node } from '../graph/node.ts';
import { type Device, devices } from '../onnx/device.ts';
import { type Emitted, emit, type WeightSource } from '../onnx/emit.ts';

/** How a program is compiled, and what of it is kept in memory. */
export interface CompileOptions {
  /** named weights; those it does not know become inputs of every run */
  weights?: WeightSource;
  /** threads inside one product; default: VISEDIT_THREADS or all cores */
  threads?: number;
  /** copy weights into the layout that is fastest (default), or leave them mapped from disk */
  prepack?: boolean;
  /** keep freed memory for the next run (default); off returns it after runs of varying length */
  arena?: boolean;
  optimization?: 'all' | 'basic' | 'disabled';
  /**
   * When half-precision weights become floats: once, when the program is opened (default; as much memory again as in float32), or at each use,
   * so that they stay mapped from disk
   */
  half?: 'once' | 'perUse';
  /** the beginning of a file's name: the engine writes there which node ran where, and how long, when the program is released */
  profile?: string;
  /** nothing is written to stderr when a run fails */
  silent?: boolean;
  /** given the outputs of every run; what it throws fails the run */
  afterRun?: (outputs: Readonly<Record<string, Tensor>>) => void;
  /** programs that are given the same object share their weights, on devices where one session may hold several programs */
  together?: object;
  /** settings of the device's own, by the engine's name of the device */
  providerOptions?: Record<string, Record<string, string>>;
}

export interface Session {
  /** @param only the outputs to return; all when left out */
  run(feeds: Record<string, Tensor>, only?: readonly string[]): Promise<Record<string, Tensor>>;
  release(): Promise<void>;
}

/** Opens sessions over emitted graphs: what a platform file (node.ts, web.ts) supplies. */
export interface Backend {
  readonly device: Device;
  open(emitted: Emitted, options: CompileOptions): Promise<Session>;
}

/** Makes programs for one device. */
export interface Engine {
  readonly device: Device;
  compile(outputs: Readonly<Record<string, Node>>, options?: CompileOptions): Promise<Program>;
}

export type Feeds = Readonly<Record<string, Tensor>>;

/** A compiled graph, run as often as one likes: named tensors in, named tensors out. */
export class Program {
  readonly inputs: Emitted['inputs'];
  readonly outputs: Emitted['outputs'];
  readonly #session: Session;

  readonly #device: Device;
  readonly #checks: Emitted['checks'];
  readonly #afterRun: CompileOptions['afterRun'];

  constructor(
    emitted: Pick<Emitted, 'inputs' | 'outputs' | 'checks'>,
    session: Session,
    device: Device = devices.cpu,
    { afterRun }: CompileOptions = {},
  ) {
    this.#device = device;
    this.#checks = emitted.checks;
    this.#afterRun = afterRun;
    this.inputs = emitted.inputs;
    this.outputs = emitted.outputs;
    this.#session = session;
  }

  /**
   * Runs once. Every input must be given with its declared dtype and a shape that fits; a symbol has one value per run.
   * @param only the outputs to return; all when left out
   * @throws Error that names the input, what it got and what was declared; FileChanged when the weights are no longer those that were opened
   */
  async run(feeds: Feeds, only?: readonly string[]): Promise<Record<string, Tensor>> {
    const bound = new Map<string, { value: number; by: string }>();
    const given: Record<string, Tensor> = {};
    for (const [name, { dtype, shape }] of this.inputs) {
      const t = feeds[name];
      if (t === undefined) throw new Error(`input ${name} ${dtype}${showShape(shape)} is missing`);
      checkInput(name, t, dtype, shape, bound);
      if (!this.#device.emptyAxes && t.shape.includes(0))
        throw new Error(`input ${name} is ${showShape(t.shape)}: ${this.#device.name} takes no axis of length 0`);
      given[name] = t;
    }
    // Before: what is cut off ends the process when it is touched. After: what was overwritten meanwhile gave a wrong answer.
    for (const check of this.#checks) check();
    const outputs = await this.#session.run(given, only);
    for (const check of this.#checks) check();
    this.#afterRun?.(outputs);
    return outputs;
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

function checkInput(
  name: string,
  t: Tensor,
  dtype: DType,
  shape: readonly Dim[],
  bound: Map<string, { value: number; by: string }>,
): void {
  const fits = t.dtype === dtype && t.shape.length === shape.length;
  if (!fits) throw new Error(`input ${name} must be ${dtype}${showShape(shape)}, got ${t.dtype}${showShape(t.shape)}`);
  shape.forEach((d, axis) => {
    const size = t.shape[axis]!;
    if (typeof d === 'number') {
      if (size !== d) throw new Error(`input ${name} must be ${showShape(shape)}, got ${showShape(t.shape)}`);
      return;
    }
    if (!/^\w+$/.test(d)) return;
    const before = bound.get(d);
    if (before === undefined) bound.set(d, { value: size, by: name });
    else if (before.value !== size)
      throw new Error(`input ${name}: dimension ${d} is ${size}, but ${before.value} in ${before.by}`);
  });
}

/** Compiles named outputs into a program of a platform's. */
export async function compileWith(
  backend: Backend,
  outputs: Readonly<Record<string, Node>>,
  options: CompileOptions = {},
): Promise<Program> {
  const castPerUse = options.half === 'perUse';
  const { device } = backend;
  const emitted = emit(new Map(Object.entries(outputs)), options.weights ?? (() => undefined), { castPerUse }, device);
  for (const check of emitted.checks) check();
  const session = await backend.open(emitted, options);
  for (const check of emitted.checks) check();
  return new Program(emitted, session, device, options);
}
