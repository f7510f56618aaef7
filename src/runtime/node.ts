/** ONNX Runtime on Node: CPU and WebGPU from the npm package, CUDA where its libraries are installed. The only file that imports onnxruntime-node. */

// Before ONNX Runtime is loaded.
import './environment.ts';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type * as Ort from 'onnxruntime-node';
import { type DType, f32, type Tensor } from '../graph/dtype.ts';
import { cast, input, matmul, type Node } from '../graph/index.ts';
import { type Device, type DeviceName, devices } from '../onnx/device.ts';
import type { Emitted } from '../onnx/emit.ts';
import { DeviceError, sharingMemory } from './card-memory.ts';
import { cards, cudaFault, cudaFolder, explainCuda, installedCuda, loadLibrary, NO_MEMORY } from './cuda.ts';
import { type Backend, type CompileOptions, compileWith, type Engine, type Program, type Session } from './program.ts';
import { compilesTogether } from './together.ts';

export function defaultThreads(): number {
  const named = process.env.VISEDIT_THREADS;
  if (named === undefined) return availableParallelism();
  const threads = Number(named);
  if (!Number.isInteger(threads) || threads < 1)
    throw new Error(`VISEDIT_THREADS must be a positive integer, got ${JSON.stringify(named)}`);
  return threads;
}

/** One native library per process: the npm package's (CPU, WebGPU), or the one that is built for CUDA (CPU, CUDA). */
let loaded: { ort: typeof Ort; cuda: boolean } | undefined;

function runtime(device: DeviceName): typeof Ort {
  if (loaded === undefined) {
    const cuda = device === 'cuda';
    if (cuda) {
      const wrong = loadLibrary(join(cudaFolder(), 'libonnxruntime.so.1'));
      if (wrong !== undefined) throw new Error(`the CUDA build of ONNX Runtime cannot be loaded: ${wrong}`);
    }
    loaded = { ort: createRequire(import.meta.url)('onnxruntime-node') as typeof Ort, cuda };
  }
  if (device !== 'cpu' && loaded.cuda !== (device === 'cuda'))
    throw new Error(
      `this process has begun to run programs with the library for ${loaded.cuda ? 'CUDA' : 'CPU and WebGPU'}; ${device} needs a process of its own`,
    );
  return loaded.ort;
}

class NodeSession implements Session {
  readonly #session: Ort.InferenceSession;
  readonly #names: string[];
  readonly #device: DeviceName;
  readonly #profiled: boolean;

  constructor(session: Ort.InferenceSession, emitted: Emitted, device: DeviceName, profiled: boolean) {
    this.#profiled = profiled;
    this.#session = session;
    this.#names = [...emitted.outputs.keys()].map((n) => `out:${n}`);
    this.#device = device;
  }

  async run(feeds: Record<string, Tensor>, only?: readonly string[]): Promise<Record<string, Tensor>> {
    const { Tensor } = runtime(this.#device);
    const given: Record<string, Ort.Tensor> = {};
    for (const [name, t] of Object.entries(feeds))
      given[name] = new Tensor(t.dtype as 'float32', t.data as Float32Array, t.shape as number[]);
    const names = only === undefined ? this.#names : only.map((name) => `out:${name}`);
    const results = await explained(this.#device, () => this.#session.run(given, names));
    const out: Record<string, Tensor> = {};
    for (const name of names) {
      const t = results[name]!;
      out[name.slice(4)] = { dtype: t.type as DType, shape: t.dims, data: t.data as Float32Array };
    }
    return out;
  }

  async release(): Promise<void> {
    if (this.#profiled) this.#session.endProfiling();
    await this.#session.release();
  }
}

async function explained<T>(device: DeviceName, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { message } = error as Error;
    const words = device === 'cuda' ? explainCuda(message) : message;
    throw words === message ? error : new DeviceError(`${device}: ${words}`, words === NO_MEMORY, { cause: error });
  }
}

/** An engine for a device record; programs run on the processor, CUDA or WebGPU by its name. */
export function engineFor(device: Device): Engine {
  const backendOf = (own: Device): Backend => {
    const opened: Backend['open'] = (emitted, options) => open(own, emitted, options);
    return { device: own, open: own.name === 'cpu' ? opened : sharingMemory(opened) };
  };
  type Compile = (outputs: Readonly<Record<string, Node>>, options?: CompileOptions) => Promise<Program>;
  const compiler = (backend: Backend): Compile => {
    const together = compilesTogether(backend);
    return async (outputs, options) =>
      backend.device.oneSession && options?.together !== undefined
        ? together(outputs, options)
        : compileWith(backend, outputs, options);
  };
  if (device.name !== 'webgpu') return { device, compile: compiler(backendOf(device)) };
  // Only a program can tell whether the adapter has half-precision numbers.
  const tried = { ...device, half: false };
  let known: Promise<Compile> | undefined;
  const find = async (): Promise<Compile> =>
    compiler(backendOf((await takesHalf(backendOf(tried))) ? device : { ...tried, float16: false }));
  return {
    device,
    compile: async (outputs, options) => {
      known ??= find();
      return (await known)(outputs, options);
    },
  };
}

async function takesHalf(backend: Backend): Promise<boolean> {
  const x = input('x', [2, 2]);
  const program = await compileWith(
    backend,
    { y: cast(matmul(cast(x, 'float16'), cast(x, 'float16')), 'float32') },
    { silent: true },
  );
  try {
    const { y } = await program.run({ x: f32([1, 2, 3, 4], [2, 2]) });
    return y!.data[0] === 7;
  } catch (error) {
    if (/f16|float16/i.test((error as Error).message)) return false;
    throw error;
  } finally {
    await program.release();
  }
}

async function open(device: Device, emitted: Emitted, options: CompileOptions): Promise<Session> {
  const { InferenceSession } = runtime(device.name);
  const extra: Record<string, Record<string, Record<string, string> | string>> = {
    session: {
      ...(emitted.folder === undefined ? {} : { model_external_initializers_file_folder_path: emitted.folder }),
      ...(options.prepack === false ? { disable_prepacking: '1' } : {}),
      intra_op: { allow_spinning: '0' },
    },
    ...(options.providerOptions === undefined ? {} : { ep: options.providerOptions }),
  };
  const session = await explained(device.name, () =>
    InferenceSession.create(emitted.bytes, {
      executionProviders: device.name === 'cpu' ? ['cpu'] : [device.name, 'cpu'],
      intraOpNumThreads: options.threads ?? defaultThreads(),
      interOpNumThreads: 1,
      // Measured: with patterns on, training takes twice the memory and time.
      enableMemPattern: false,
      enableCpuMemArena: options.arena ?? true,
      // Optimisation would widen half-precision weights when the session is opened.
      graphOptimizationLevel: options.half === 'perUse' ? 'disabled' : (options.optimization ?? 'all'),
      logSeverityLevel: options.silent ? 4 : 3,
      ...(options.profile === undefined ? {} : { enableProfiling: true, profileFilePrefix: options.profile }),
      extra,
    }),
  );
  return new NodeSession(session, emitted, device.name, options.profile !== undefined);
}

/** This machine's processor. */
export const cpuEngine: Engine = engineFor(devices.cpu);

/** Compiles named outputs into a program for the processor. */
export function compile(outputs: Readonly<Record<string, Node>>, options: CompileOptions = {}): Promise<Program> {
  return cpuEngine.compile(outputs, options);
}

export const deviceChoices = ['auto', 'cpu', 'cuda', 'webgpu'] as const;
/** A device by name, or `auto`: CUDA where it works and the model is large, otherwise the processor. */
export type DeviceChoice = (typeof deviceChoices)[number];

/**
 * The device that VISEDIT_DEVICE names, which `--device` sets: processes and threads that a command starts see it too.
 * @throws Error when it names none
 */
export function chosenDevice(): DeviceChoice {
  const named = process.env.VISEDIT_DEVICE ?? 'auto';
  const choice = deviceChoices.find((one) => one === named);
  if (choice === undefined)
    throw new Error(`VISEDIT_DEVICE must be one of ${deviceChoices.join(', ')}, got ${JSON.stringify(named)}`);
  return choice;
}

/** Numbers of weights from which a card is worth its start. */
const WORTH_A_CARD = 5e8;

/**
 * The engine of a device.
 * @param numbers of weights of the model that `auto` chooses for
 * @throws Error that says what is missing, and the step that mends it
 */
export function engineOn(choice: DeviceChoice, numbers = Number.POSITIVE_INFINITY): Engine {
  const name = choice === 'auto' ? automatic(numbers) : choice;
  if (name === 'cpu') return cpuEngine;
  if (choice === 'cuda') {
    const fault = cudaFault();
    if (fault !== undefined) throw new Error(`--device cuda: ${fault}. What this machine offers: visedit devices`);
  }
  // The processor's programs run on the library for CUDA as well, but not the other way round.
  runtime(name);
  const card = name === 'cuda' ? cards()[0] : undefined;
  return engineFor({ ...devices[name], ...(card === undefined ? {} : { card: { name: card.name, memory: card.memory } }) });
}

function automatic(numbers: number): DeviceName {
  if (numbers < WORTH_A_CARD || (loaded !== undefined && !loaded.cuda)) return 'cpu';
  try {
    return installedCuda() !== undefined && cudaFault() === undefined ? 'cuda' : 'cpu';
  } catch {
    return 'cpu';
  }
}
