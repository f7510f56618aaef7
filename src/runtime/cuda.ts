/**
 * The CUDA build of ONNX Runtime, which the npm package leaves out: `visedit devices install cuda` puts it into a folder of its own, and it is loaded
 * from there. The binding asks the system for `libonnxruntime.so.1` and gets the one that is loaded already; what the provider needs of CUDA is
 * loaded by path before it, so that no variable has to be set.
 */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants, homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { parseConfig } from '../files/config.ts';
import { readJson } from '../files/json.ts';

export const INSTALL = 'visedit devices install cuda';

/** Version of the installed onnxruntime-node: its libraries must be of the same. */
export function runtimeVersion(): string {
  const path = createRequire(import.meta.url).resolve('onnxruntime-node/package.json');
  return (readJson(path) as { version: string }).version;
}

const manifestSchema = z.looseObject({
  version: z.string(),
  /** libraries of CUDA and cuDNN in the order in which they are loaded: paths, or names that the system finds */
  libraries: z.array(z.string()),
});
/** What `devices install cuda` writes beside the libraries. */
export type CudaManifest = z.output<typeof manifestSchema>;

export const MANIFEST = 'cuda.json';

/** The folder of the CUDA libraries of this version: VISEDIT_CUDA, or one of the user's cache. */
export const cudaFolder = (version = runtimeVersion()): string =>
  process.env.VISEDIT_CUDA ?? join(homedir(), '.cache', 'visedit', `cuda-${version}`);

/**
 * What is installed; undefined: nothing is.
 * @throws Error when it is of another version
 */
export function installedCuda(): CudaManifest | undefined {
  const path = join(cudaFolder(), MANIFEST);
  if (!existsSync(path)) return undefined;
  const manifest = parseConfig(path, manifestSchema, readJson(path));
  const version = runtimeVersion();
  if (manifest.version !== version)
    throw new Error(`${path} is of ONNX Runtime ${manifest.version}, this is ${version}; install its libraries: ${INSTALL}`);
  return manifest;
}

/** Not unloaded when the loader sees that it is no add-on of Node. */
const RTLD_NODELETE = 0x1000;

/** Loads a shared library for everything that is loaded after it; what is wrong with it when it cannot be. */
export function loadLibrary(path: string): string | undefined {
  const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen;
  try {
    process.dlopen({ exports: {} }, path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  } catch (error) {
    const message = (error as Error).message;
    return /did not self-register/.test(message) ? undefined : message;
  }
  return undefined;
}

export interface Card {
  readonly name: string;
  /** bytes */
  readonly memory: number;
  readonly driver: string;
}

/** The NVIDIA cards that the driver names; none without a driver. */
export function cards(): Card[] {
  try {
    const text = execFileSync('nvidia-smi', ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader,nounits'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 20_000,
    });
    return text
      .trim()
      .split('\n')
      .map((line) => line.split(', '))
      .filter((parts) => parts.length === 3)
      .map(([name, memory, driver]) => ({ name: name!, memory: Number(memory) * 2 ** 20, driver: driver! }));
  } catch {
    return [];
  }
}

/** The oldest driver that runs CUDA 13. */
const OLDEST_DRIVER = 580;

/** Where the driver's library lies: where the system finds it, in containers, and under Windows' Linux. */
const drivers = ['libcuda.so.1', '/usr/local/nvidia/lib64/libcuda.so.1', '/usr/lib/wsl/lib/libcuda.so.1'];

/** What keeps CUDA from working on this machine, with the step that mends it; undefined: nothing that can be seen before a program runs. */
export function cudaFault(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `CUDA needs Linux on x64; this is ${process.platform} on ${process.arch}. Use --device webgpu`;
  const driver = loadLibrary(drivers[0]!);
  if (driver !== undefined && drivers.slice(1).every((path) => loadLibrary(path) !== undefined))
    return `the NVIDIA driver is missing (${driver}); install the driver of your card, version ${OLDEST_DRIVER} or newer`;
  const [card] = cards();
  if (card !== undefined && Number.parseInt(card.driver, 10) < OLDEST_DRIVER)
    return `the NVIDIA driver ${card.driver} is too old; install version ${OLDEST_DRIVER} or newer`;
  const manifest = installedCuda();
  if (manifest === undefined) return `the CUDA libraries of ONNX Runtime ${runtimeVersion()} are not installed; run: ${INSTALL}`;
  for (const library of manifest.libraries) {
    const wrong = loadLibrary(library);
    if (wrong !== undefined) return `a library of CUDA cannot be loaded (${wrong}); run again: ${INSTALL}`;
  }
  return undefined;
}

export const NO_MEMORY =
  'the card has too little free memory for this; take --micro-batch 1, weights in whole numbers (--dtype int4), or end other programs on the card';

/** Errors of CUDA in words that say what to do. */
export function explainCuda(message: string): string {
  if (/out of memory|CUDA failure 2\b|BFCArena|Failed to allocate memory/i.test(message)) return NO_MEMORY;
  if (/no kernel image|CUDA failure 209/i.test(message))
    return 'the CUDA libraries have no code for this card: it needs compute capability 7.5 (Turing) or newer; use --device webgpu';
  if (/driver version is insufficient|CUDA failure 35\b/i.test(message))
    return `the NVIDIA driver is too old; install version ${OLDEST_DRIVER} or newer`;
  if (/no CUDA-capable device|CUDA failure 100\b|CUDA failure 101\b/i.test(message))
    return 'no NVIDIA card is visible; look at nvidia-smi';
  if (/CUDA failure (46|999|719|700|710|4)\b|device.*(lost|unavailable)/i.test(message))
    return 'the card stopped answering, and this process cannot use it any more; start again, training with --resume';
  return message;
}
