/** ONNX Runtime on Node (CPU; CUDA and WebGPU where the installed package offers them). The only file that imports onnxruntime-node. */

// Before ONNX Runtime is loaded.
import './no-telemetry.ts';
import { availableParallelism } from 'node:os';
import * as ort from 'onnxruntime-node';
import type { DType, Tensor } from '../graph/dtype.ts';
import type { Node } from '../graph/node.ts';
import type { Emitted } from '../onnx/emit.ts';
import { type Backend, type CompileOptions, compileWith, type Engine, type Program, type Session } from './program.ts';

export function defaultThreads(): number {
  const named = process.env.VISEDIT_THREADS;
  if (named === undefined) return availableParallelism();
  const threads = Number(named);
  if (!Number.isInteger(threads) || threads < 1)
    throw new Error(`VISEDIT_THREADS must be a positive integer, got ${JSON.stringify(named)}`);
  return threads;
}

class NodeSession implements Session {
  readonly #session: ort.InferenceSession;
  readonly #names: string[];

  constructor(session: ort.InferenceSession, emitted: Emitted) {
    this.#session = session;
    this.#names = [...emitted.outputs.keys()].map((n) => `out:${n}`);
  }

  async run(feeds: Record<string, Tensor>, only?: readonly string[]): Promise<Record<string, Tensor>> {
    const given: Record<string, ort.Tensor> = {};
    for (const [name, t] of Object.entries(feeds))
      given[name] = new ort.Tensor(t.dtype as 'float32', t.data as Float32Array, t.shape as number[]);
    const names = only === undefined ? this.#names : only.map((name) => `out:${name}`);
    const results = await this.#session.run(given, names);
    const out: Record<string, Tensor> = {};
    for (const name of names) {
      const t = results[name]!;
      out[name.slice(4)] = { dtype: t.type as DType, shape: t.dims, data: t.data as Float32Array };
    }
    return out;
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

const backend: Backend = {
  async open(emitted, options) {
    const provider = options.provider ?? 'cpu';
    const offered = ort.listSupportedBackends().map((b) => b.name);
    if (!offered.includes(provider))
      throw new Error(`provider ${provider} is not offered here; choose one of: ${offered.join(', ')}`);
    const extra: Record<string, Record<string, Record<string, string> | string>> = {
      session: {
        ...(emitted.folder === undefined ? {} : { model_external_initializers_file_folder_path: emitted.folder }),
        ...(options.prepack === false ? { disable_prepacking: '1' } : {}),
        intra_op: { allow_spinning: '0' },
      },
    };
    const session = await ort.InferenceSession.create(emitted.bytes, {
      executionProviders: [provider],
      intraOpNumThreads: options.threads ?? defaultThreads(),
      interOpNumThreads: 1,
      // Measured: with patterns on, training takes twice the memory and time.
      enableMemPattern: false,
      enableCpuMemArena: options.arena ?? true,
      // Optimisation would widen half-precision weights when the session is opened.
      graphOptimizationLevel: options.half === 'perUse' ? 'disabled' : (options.optimization ?? 'all'),
      logSeverityLevel: 3,
      extra,
    });
    return new NodeSession(session, emitted);
  },
};

/** Compiles named outputs into a program on this machine. */
export function compile(outputs: Readonly<Record<string, Node>>, options: CompileOptions = {}): Promise<Program> {
  return compileWith(backend, outputs, options);
}

/** This machine's processor. */
export const cpuEngine: Engine = { device: { name: 'cpu' }, compile };
