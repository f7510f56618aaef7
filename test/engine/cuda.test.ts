/** Installing the CUDA libraries from a registry on this machine, and what is said where CUDA cannot work. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { afterEach, expect, test } from 'vitest';
import { explainCuda, installedCuda, loadLibrary, runtimeVersion } from '../../src/runtime/cuda.ts';
import { installCuda } from '../../src/runtime/install-cuda.ts';
import { zipOf } from '../files/torch-files.ts';

const version = runtimeVersion();
const cleanUps: (() => void)[] = [];
afterEach(() => {
  for (const cleanUp of cleanUps.splice(0)) cleanUp();
  delete process.env.VISEDIT_CUDA;
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-cuda-'));
  cleanUps.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const wheel = (files: Record<string, Buffer>): Buffer =>
  zipOf(Object.entries(files).map(([name, data]) => ({ name, data: deflateRawSync(data), method: 8 })));
const content = (name: string): Buffer => Buffer.from(name.repeat(20_000));
const runtimeFiles = [`libonnxruntime.so.${version}`, 'libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'];
const cudaFiles: Record<string, string[]> = {
  'nvidia-cuda-runtime': ['libcudart.so.13'],
  'nvidia-nvjitlink': ['libnvJitLink.so.13'],
  'nvidia-cuda-nvrtc': ['libnvrtc.so.13'],
  'nvidia-cublas': ['libcublasLt.so.13', 'libcublas.so.13'],
  'nvidia-curand': ['libcurand.so.10'],
  'nvidia-cufft': ['libcufft.so.12'],
  'nvidia-cudnn-cu13': ['libcudnn_graph.so.9', 'libcudnn.so.9'],
};

interface Fault {
  /** what the registry says of a wheel that is damaged on the way */
  wrongHash?: boolean;
  /** the first answers end after so many bytes */
  cutAfter?: number;
  /** version of the runtime's wheel */
  version?: string;
  html?: boolean;
}

/** A registry with the runtime's wheel and those of CUDA. */
async function registry(fault: Fault = {}): Promise<string> {
  const named = (name: string, of: string): string => `${name.replace(/-/g, '_')}-${of}-py3-none-manylinux_2_28_x86_64.whl`;
  const wheels = new Map<string, { file: string; data: Buffer }>();
  const own = [...runtimeFiles, 'ignored.py'].map((name) => [`onnxruntime/capi/${name}`, content(name)] as const);
  wheels.set('onnxruntime-gpu', {
    file: named('onnxruntime-gpu', fault.version ?? version),
    data: wheel(Object.fromEntries(own)),
  });
  for (const [name, files] of Object.entries(cudaFiles))
    wheels.set(name, {
      file: named(name, '13.0.1'),
      data: wheel(Object.fromEntries(files.map((file) => [`nvidia/cu13/lib/${file}`, content(file)]))),
    });
  let cuts = fault.cutAfter === undefined ? 0 : 2;
  const server = createServer((request, response) => {
    const [, kind, name = ''] = (request.url ?? '').split('/');
    if (kind === 'simple') {
      const found = wheels.get(name);
      if (found === undefined) return response.writeHead(404).end();
      if (fault.html) return response.end('<html>');
      const sha256 = createHash('sha256')
        .update(fault.wrongHash ? 'other' : found.data)
        .digest('hex');
      return response.end(JSON.stringify({ files: [{ filename: found.file, url: `/files/${found.file}`, hashes: { sha256 } }] }));
    }
    const data = [...wheels.values()].find(({ file }) => file === name)!.data;
    const from = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': data.length - from,
      ...(from > 0 ? { 'content-range': `bytes ${from}-${data.length - 1}/${data.length}` } : {}),
    });
    if (request.method === 'HEAD') return response.end();
    if (cuts-- > 0)
      return response.write(data.subarray(from, from + fault.cutAfter!), () => setTimeout(() => response.destroy(), 20));
    return response.end(data.subarray(from));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  cleanUps.push(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/simple`;
}

const install = (index: string, folder: string, places: string[] = []) => installCuda({ index, folder, places, retryDelay: 1 });

test('the runtime and what CUDA needs are fetched, checked and unpacked; the next look finds them', async () => {
  const folder = newFolder();
  const installed = await install(await registry(), folder);
  expect(readdirSync(folder).sort()).toEqual(
    ['cuda.json', 'libonnxruntime.so.1', ...runtimeFiles.slice(1), ...Object.values(cudaFiles).flat()].sort(),
  );
  expect(readFileSync(join(folder, 'libonnxruntime.so.1'))).toEqual(content(runtimeFiles[0]!));
  expect(readFileSync(join(folder, 'libcublas.so.13'))).toEqual(content('libcublas.so.13'));
  process.env.VISEDIT_CUDA = folder;
  expect(installedCuda()).toEqual({ version, libraries: installed.libraries });
  expect(installed.libraries[0]).toBe(join(folder, 'libcudart.so.13'));
});

test('libraries that are there already are not fetched', async () => {
  const [folder, place] = [newFolder(), newFolder()];
  for (const name of Object.values(cudaFiles).flat()) writeFileSync(join(place, name), '');
  const { libraries } = await install(await registry(), folder, [place]);
  expect(libraries).toEqual(
    Object.values(cudaFiles)
      .flat()
      .map((name) => join(place, name)),
  );
  expect(readdirSync(folder)).not.toContain('libcudart.so.13');
});

test('a transfer that breaks off goes on where it broke', async () => {
  const folder = newFolder();
  await install(await registry({ cutAfter: 50 }), folder);
  expect(readFileSync(join(folder, 'libonnxruntime.so.1'))).toEqual(content(runtimeFiles[0]!));
});

test.each<[string, Fault, RegExp]>([
  ['a wrong hash', { wrongHash: true }, /arrived damaged: its SHA-256 is/],
  ['no wheel of this version', { version: '1.2.3' }, /has no wheel of onnxruntime-gpu .* for Linux on x64/],
  ['a registry without JSON', { html: true }, /gives no list of files in JSON; name a mirror/],
])('%s is told, and nothing counts as installed', async (_, fault, message) => {
  const folder = newFolder();
  await expect(install(await registry(fault), folder)).rejects.toThrow(message);
  process.env.VISEDIT_CUDA = folder;
  expect(installedCuda()).toBeUndefined();
});

test('a registry that cannot be reached, and a folder that cannot be written, are named', async () => {
  await expect(install('http://127.0.0.1:1/simple', newFolder())).rejects.toThrow('cannot reach http://127.0.0.1:1/simple');
  const file = join(newFolder(), 'file');
  writeFileSync(file, '');
  await expect(install(await registry(), join(file, 'below'))).rejects.toThrow(
    /cannot be written .*name another folder in VISEDIT_CUDA/,
  );
});

test('libraries of another version are refused', () => {
  const folder = newFolder();
  writeFileSync(join(folder, 'cuda.json'), JSON.stringify({ version: '1.2.3', libraries: [] }));
  process.env.VISEDIT_CUDA = folder;
  expect(() => installedCuda()).toThrow(
    `is of ONNX Runtime 1.2.3, this is ${version}; install its libraries: visedit devices install cuda`,
  );
});

test('a library that is missing or damaged is named', () => {
  const path = join(newFolder(), 'libdamaged.so');
  writeFileSync(path, 'not a library');
  expect(loadLibrary(path)).toMatch(/libdamaged\.so: (file too short|invalid ELF header)/);
  expect(loadLibrary('libnone.so.1')).toMatch(/libnone\.so\.1: cannot open shared object file/);
});

test.each([
  ['CUDA failure 2: out of memory ; GPU=0', /too little free memory .*--micro-batch 1/],
  ['bfc_arena.cc Failed to allocate memory for requested buffer of size 1', /too little free memory/],
  ['CUDA failure 209: no kernel image is available for execution on the device', /compute capability 7\.5/],
  ['CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version', /driver is too old/],
  ['CUDA failure 100: no CUDA-capable device is detected', /no NVIDIA card is visible/],
  ['CUDA failure 719: unspecified launch failure', /stopped answering/],
])('%s is told in words', (message, words) => {
  expect(explainCuda(message)).toMatch(words);
});
