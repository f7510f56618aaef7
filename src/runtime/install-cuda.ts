/**
 * Puts the CUDA build of ONNX Runtime into a folder of its own: out of the wheel `onnxruntime-gpu` of the version that is installed for Node, from
 * Python's package registry. CUDA and cuDNN are taken from the system or from the wheels beside PyTorch, and otherwise fetched as wheels too.
 */

import { execFileSync } from 'node:child_process';
import { accessSync, createReadStream, createWriteStream, constants as fs, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createInflateRaw } from 'node:zlib';
import { z } from 'zod';
import { makeFolder, writeFileAtomic } from '../files/atomic.ts';
import { downloadFile } from '../files/hub-download.ts';
import type { RemoteFile } from '../files/hub-request.ts';
import { parseJson } from '../files/json.ts';
import { openZip, withRanges } from '../files/zip.ts';
import { type CudaManifest, cudaFolder, loadLibrary, MANIFEST, runtimeVersion } from './cuda.ts';

/** Libraries of CUDA 13 and cuDNN 9 in the order in which they are loaded, with the wheels that hold them. */
const libraries: readonly (readonly [wheel: string, ...names: string[]])[] = [
  ['nvidia-cuda-runtime', 'libcudart.so.13'],
  ['nvidia-nvjitlink', 'libnvJitLink.so.13'],
  ['nvidia-cuda-nvrtc', 'libnvrtc.so.13'],
  ['nvidia-cublas', 'libcublasLt.so.13', 'libcublas.so.13'],
  ['nvidia-curand', 'libcurand.so.10'],
  ['nvidia-cufft', 'libcufft.so.12'],
  ['nvidia-cudnn-cu13', 'libcudnn_graph.so.9', 'libcudnn.so.9'],
];

export interface InstallOptions {
  /** address of the package registry's list of files; default: PIP_INDEX_URL, or PyPI */
  index?: string | undefined;
  folder?: string | undefined;
  signal?: AbortSignal;
  onProgress?: (file: string, done: number, total: number | undefined) => void;
  /** milliseconds before the first retry of a broken transfer */
  retryDelay?: number;
  /** folders that may hold CUDA's libraries; default: those of the system and of Python's packages */
  places?: readonly string[];
}

/** Written one after the other: where the last is, all are. */
const runtimeFiles = ['libonnxruntime.so.1', 'libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'];

/**
 * Fetches what the folder does not hold yet.
 * @throws Error that says what cannot be fetched or written
 */
export async function installCuda(options: InstallOptions = {}): Promise<CudaManifest & { readonly folder: string }> {
  const version = runtimeVersion();
  const folder = options.folder ?? cudaFolder(version);
  writable(folder);
  if (!runtimeFiles.every((name) => list(folder).includes(name))) {
    const wheel = await fetchWheel('onnxruntime-gpu', version, folder, options);
    await unpack(wheel, folder, (name) => {
      const file = /^onnxruntime\/capi\/(libonnxruntime(?:_providers_(?:shared|cuda))?\.so)(?:\.[\d.]+)?$/.exec(name)?.[1];
      return file === 'libonnxruntime.so' ? 'libonnxruntime.so.1' : file;
    });
    rmSync(wheel);
  }
  const places = options.places ?? cudaPlaces();
  const found: string[] = [];
  for (const [wheelName, ...names] of libraries) {
    if (!names.every((name) => findLibrary(name, [folder, ...places]) !== undefined)) {
      const path = await fetchWheel(wheelName, undefined, folder, options);
      await unpack(path, folder, (name) => (/\/lib\/[^/]+\.so[\d.]*$/.test(name) ? basename(name) : undefined));
      rmSync(path);
    }
    for (const name of names) {
      const library = findLibrary(name, [folder, ...places]);
      if (library === undefined) throw new Error(`${name} is not in the wheel ${wheelName}; install CUDA 13 and cuDNN 9 by hand`);
      found.push(library);
    }
  }
  const manifest: CudaManifest = { version, libraries: found };
  writeFileAtomic(join(folder, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`);
  return { ...manifest, folder };
}

function writable(folder: string): void {
  try {
    makeFolder(folder);
    accessSync(folder, fs.W_OK);
  } catch (error) {
    throw new Error(`${folder} cannot be written (${(error as Error).message}); name another folder in VISEDIT_CUDA`, {
      cause: error,
    });
  }
}

/** A library's path in one of the folders, or its name where the system's loader finds it. */
function findLibrary(name: string, folders: readonly string[]): string | undefined {
  for (const folder of folders) {
    try {
      accessSync(join(folder, name), fs.R_OK);
      return join(folder, name);
    } catch {
      // the next folder
    }
  }
  return loadLibrary(name) === undefined ? name : undefined;
}

/** Folders where CUDA's libraries lie: named by the environment, the toolkit's, and those of wheels beside PyTorch. */
function cudaPlaces(): string[] {
  const named = (process.env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean);
  const toolkits = ['/usr/local/cuda/lib64', '/usr/local/cuda-13/lib64', '/opt/cuda/lib64', '/usr/lib/x86_64-linux-gnu'];
  const wheels = sitePackages().flatMap((site) => {
    const nvidia = join(site, 'nvidia');
    return list(nvidia).map((part) => join(nvidia, part, 'lib'));
  });
  return [...named, ...toolkits, ...wheels];
}

function sitePackages(): string[] {
  const script =
    'import json, site, sys, sysconfig; print(json.dumps([sysconfig.get_paths()["purelib"], *site.getsitepackages()]))';
  for (const python of [process.env.VISEDIT_PYTHON, 'python3', 'python'].filter((one) => one !== undefined)) {
    try {
      return parseJson(
        execFileSync(python, ['-c', script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
        'what Python answers',
      ) as string[];
    } catch {
      // the next name
    }
  }
  return [];
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The registry's list of a package's files (PEP 691). */
const listing = z.looseObject({
  files: z.array(
    z.looseObject({ filename: z.string(), url: z.string(), hashes: z.looseObject({ sha256: z.string().optional() }) }),
  ),
});

/** The wheel of a package for Linux on x64: of a version, or the newest for CUDA 13. Fetched, and checked by the registry's hash. */
async function fetchWheel(
  name: string,
  version: string | undefined,
  folder: string,
  { index = process.env.PIP_INDEX_URL ?? 'https://pypi.org/simple', signal, onProgress, retryDelay }: InstallOptions,
): Promise<string> {
  const url = `${index.replace(/\/+$/, '')}/${name}/`;
  let answer: Response;
  try {
    answer = await fetch(url, { headers: { accept: 'application/vnd.pypi.simple.v1+json' }, signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Error(`cannot reach ${url} (${(error as Error).message}); check the network, or name a mirror in PIP_INDEX_URL`, {
      cause: error,
    });
  }
  if (!answer.ok) throw new Error(`${url} answered HTTP ${answer.status}; name a mirror in PIP_INDEX_URL`);
  let parsed: z.output<typeof listing> | undefined;
  try {
    parsed = listing.parse(parseJson(await answer.text(), url));
  } catch {
    parsed = undefined;
  }
  if (parsed === undefined) throw new Error(`${url} gives no list of files in JSON; name a mirror that does in PIP_INDEX_URL`);
  const fits = parsed.files.filter(({ filename }) => {
    const [, of, platform] = /^[\w.]+?-([\d.]+(?:post\d+)?)-.*-(\w+)\.whl$/.exec(filename) ?? [];
    const wanted = version === undefined ? of !== undefined : of === version;
    return wanted && /^manylinux.*x86_64$/.test(platform ?? '');
  });
  // A registry lists old files first.
  const chosen = version === undefined ? fits.at(-1) : fits[0];
  if (chosen === undefined)
    throw new Error(`${url} has no wheel of ${name}${version === undefined ? '' : ` ${version}`} for Linux on x64`);
  const { sha256 } = chosen.hashes;
  if (sha256 === undefined)
    throw new Error(`${url} names no SHA-256 of ${chosen.filename}; name another registry in PIP_INDEX_URL`);
  const file: RemoteFile = { name: chosen.filename, url: new URL(chosen.url, url).href, sha256 };
  const head = await fetch(file.url, { method: 'HEAD', signal: signal ?? null }).catch(() => undefined);
  const total = Number(head?.headers.get('content-length')) || undefined;
  // An endpoint of no origin: the registry is not sent the hub's token.
  await downloadFile({ endpoint: 'file:///', id: name, revision: '' }, file, folder, {
    complete: false,
    signal,
    retryDelay,
    onBytes: (done) => onProgress?.(chosen.filename, done, total),
  });
  return join(folder, chosen.filename);
}

/** Writes the files of a wheel that `place` gives a name to. */
async function unpack(wheel: string, folder: string, place: (name: string) => string | undefined): Promise<void> {
  for (const entry of openZip(wheel).entries.values()) {
    const name = place(entry.name);
    if (name === undefined) continue;
    const target = join(folder, name);
    const part = `${target}.part`;
    // The range of an entry is checked before it is read.
    withRanges(wheel, (file) => file.read(entry.begin + Math.max(0, entry.bytes - 1), entry.bytes === 0 ? 0 : 1, name));
    const packed = createReadStream(wheel, { start: entry.begin, end: entry.begin + entry.bytes - 1 });
    if (entry.method === 0) await pipeline(packed, createWriteStream(part));
    else if (entry.method === 8) await pipeline(packed, createInflateRaw(), createWriteStream(part));
    else throw new Error(`${wheel}: ${entry.name} is compressed by method ${entry.method}, which is not read here`);
    renameSync(part, target);
  }
}
