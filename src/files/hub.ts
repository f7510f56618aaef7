/**
 * Model folders from a hub that speaks the HTTP paths of huggingface.co: `/api/models/ORG/NAME/revision/REV` lists the files,
 * `/ORG/NAME/resolve/REV/FILE` gives one. Only what loadModel reads is fetched. A stopped download goes on where it stopped.
 */

import { existsSync, lstatSync, readdirSync, realpathSync, rmdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve, sep } from 'node:path';
import { z } from 'zod';
import { makeFolder, writeFileAtomic } from './atomic.ts';

import { downloadFile, partOf } from './hub-download.ts';
import { answerText, type HubAddress, HubError, hubRequest, persistently, type RemoteFile } from './hub-request.ts';
import { type Json, parseJson } from './json.ts';
import { parseConfig, readJsonAs } from './schema.ts';

export { HubError } from './hub-request.ts';

export const defaultEndpoint = (): string => process.env.HF_ENDPOINT ?? 'https://huggingface.co';

/** Where a hub model is kept. */
export const hubFolder = (id: string): string => join(homedir(), '.cache', 'visedit', ...id.split('/'));

/** ORG/NAME, as hubs name models; no part may lead elsewhere. */
export const isHubId = (id: string): boolean => /^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(id) && !id.includes('..');

/** FILE or FOLDER/FILE, as a hub may name what it has; nothing hidden, nothing above. */
function isPlainName(name: string): boolean {
  const parts = name.split('/');
  return parts.length <= 2 && parts.every((part) => /^[\w-][\w.-]*$/.test(part));
}

/** Written when a download begins, completed when it ends: what is there, and whether all of it. */
const MANIFEST = '.visedit-pull.json';
const CONFIG = 'config.json';
const manifestSchema = z.looseObject({
  id: z.string(),
  revision: z.string(),
  complete: z.boolean(),
  files: z.record(
    z.string().refine(isPlainName, 'expected the name of a file in this folder, or in a folder of it'),
    z.looseObject({ size: z.number().optional(), etag: z.string().optional() }),
  ),
});
type Manifest = z.output<typeof manifestSchema>;

function readManifest(folder: string): Manifest | undefined {
  try {
    return readJsonAs(join(folder, MANIFEST), manifestSchema);
  } catch {
    return undefined;
  }
}

/** The folder of a hub model on this machine; undefined when it was never fetched. @throws when its download is not finished */
export function pulledFolder(id: string): string | undefined {
  if (!isHubId(id)) return undefined;
  const folder = hubFolder(id);
  if (!existsSync(folder)) return undefined;
  if (readManifest(folder)?.complete === false)
    throw new Error(`the download of ${id} to ${folder} is not finished; go on with: visedit pull ${id}`);
  return folder;
}

export interface PullOptions {
  out?: string;
  endpoint?: string;
  revision?: string;
  signal?: AbortSignal;
  onProgress?: (doneBytes: number, totalBytes: number | undefined, file: string) => void;
  /** milliseconds before the first retry of a broken transfer; doubles each time */
  retryDelay?: number;
  freeBytes?: (folder: string) => number;
  /** Told of the path of config.json before anything else is fetched; what it throws ends the download and leaves nothing. */
  checkConfig?: (path: string) => void;
}

export interface Pulled {
  id: string;
  revision: string;
  commit: string | undefined;
  out: string;
  files: { name: string; bytes: number; sha256: boolean }[];
  bytes: number;
}

/** Fetches a model; a stopped download goes on when it is called again. */
export async function pull(id: string, options: PullOptions = {}): Promise<Pulled> {
  try {
    return await pullFiles(id, options);
  } catch (error) {
    if (!options.signal?.aborted) throw error;
    throw Object.assign(new Error('stopped; what is fetched is kept'), { name: 'Stopped' });
  }
}

async function pullFiles(id: string, options: PullOptions): Promise<Pulled> {
  if (!isHubId(id)) throw new Error(`${JSON.stringify(id)} is not the name of a hub model; give ORG/NAME`);
  const { revision = 'main', signal } = options;
  const address: HubAddress = { endpoint: (options.endpoint ?? defaultEndpoint()).replace(/\/+$/, ''), id, revision };
  checkEndpoint(address.endpoint);
  const out = resolve(options.out ?? hubFolder(id));
  if (existsSync(out) && !statSync(out).isDirectory()) throw new Error(`${out} is a file; name a folder`);

  const before = readManifest(out);
  if (existsSync(out) && readdirSync(out).length > 0 && before?.id !== id)
    throw new Error(`${out} is not empty, and not a download of ${id}; name a new folder`);

  const polite = <T>(work: () => Promise<T>): Promise<T> =>
    persistently(work, { delay: options.retryDelay, signal, again: ({ status }, tries) => status !== undefined && tries < 4 });
  const { names, commit } = await polite(() => listFiles(address, signal));
  const chosen = neededFiles(names);
  if (!chosen.some((name) => isWeights(name)))
    throw new Error(`${id} has no weights that are read here (model*.safetensors or pytorch_model*.bin); it has ${some(names)}`);
  const ask = (name: string): Promise<RemoteFile> => polite(() => probe(address, name, signal));
  const remote: RemoteFile[] = [];
  const manifest = (complete: boolean): void => {
    const files = Object.fromEntries(remote.map(({ name, size, etag }) => [name, { size, etag }]));
    writeFileAtomic(join(out, MANIFEST), `${JSON.stringify({ id, revision, commit, complete, files }, null, 2)}\n`);
  };
  const sameAs = (then: Manifest['files'][string] | undefined, file: RemoteFile): boolean =>
    then !== undefined && then.size === file.size && then.etag === file.etag;
  const { checkConfig, retryDelay } = options;
  const [config] = checkConfig === undefined ? [] : chosen.filter((name) => name === CONFIG);
  if (config !== undefined) {
    refuseLink(out, config);
    const file = await ask(config);
    remote.push(file);
    const same = sameAs(before?.files[config], file);
    if (!same) rmSync(partOf(out, config), { force: true });
    makeFolder(out);
    if (before === undefined) manifest(false);
    await downloadFile(address, file, out, { complete: same, signal, retryDelay, onBytes: () => {} });
    try {
      checkConfig?.(join(out, config));
    } catch (error) {
      if (before === undefined) {
        for (const name of [config, MANIFEST]) rmSync(join(out, name));
        if (readdirSync(out).length === 0) rmdirSync(out);
      }
      throw error;
    }
  }
  for (const name of chosen) if (name !== config) remote.push(await ask(name));

  // What was fetched of other contents is of no use.
  const known = (file: RemoteFile): boolean => file.name === config || sameAs(before?.files[file.name], file);
  const old = Object.keys(before?.files ?? {});
  for (const name of [...chosen, ...old]) refuseLink(out, name);
  for (const file of remote) if (!known(file)) rmSync(partOf(out, file.name), { force: true });
  for (const name of old) if (!chosen.includes(name)) rmSync(join(out, name), { force: true });
  const left = remote.reduce((sum, file) => sum + Math.max(0, (file.size ?? 0) - bytesThere(out, file)), 0);
  const nearest = existingParent(out);
  const free = (options.freeBytes ?? freeBytes)(nearest);
  if (left > free)
    throw new Error(
      `${id} needs ${gigabytes(left)} more, ${nearest} has ${gigabytes(free)} free; free some space or name another place with --out`,
    );

  makeFolder(out);
  manifest(false);
  const total = remote.every((file) => file.size !== undefined) ? remote.reduce((sum, file) => sum + file.size!, 0) : undefined;
  const files: Pulled['files'] = [];
  let done = 0;
  for (const file of remote) {
    const path = join(out, file.name);
    makeFolder(dirname(path));
    const bytes = await downloadFile(address, file, out, {
      complete: known(file),
      signal,
      retryDelay,
      onBytes: (count) => options.onProgress?.(done + count, total, file.name),
    });
    done += bytes;
    files.push({ name: file.name, bytes, sha256: file.sha256 !== undefined });
  }
  manifest(true);
  return { id, revision, commit, out, files, bytes: done };
}

/** A folder that is a link would take what is written and deleted there to another place. */
function refuseLink(out: string, name: string): void {
  const part = lstatSync(partOf(out, name), { throwIfNoEntry: false });
  if (part?.isSymbolicLink()) rmSync(partOf(out, name));
  const folder = dirname(join(out, name));
  if (existsSync(folder) && !`${realpathSync(folder)}${sep}`.startsWith(`${realpathSync(out)}${sep}`))
    throw new Error(`${folder} is a link that leads out of ${out}; remove it, or name a new folder with --out`);
}

function checkEndpoint(endpoint: string): void {
  if (!/^https?:$/.test(URL.canParse(endpoint) ? new URL(endpoint).protocol : ''))
    throw new Error(`${JSON.stringify(endpoint)} is not the address of a hub; give one such as https://huggingface.co`);
}

const listing = z.looseObject({
  sha: z.string().optional(),
  siblings: z.array(z.looseObject({ rfilename: z.string('expected the name of a file') }), 'expected the list of files'),
});

async function listFiles(
  address: HubAddress,
  signal: AbortSignal | undefined,
): Promise<{ names: string[]; commit: string | undefined }> {
  const url = `${address.endpoint}/api/models/${address.id}/revision/${encodeURIComponent(address.revision)}`;
  const { response } = await hubRequest(address, url, { signal });
  const text = await answerText(response, url);
  let value: Json;
  try {
    value = parseJson(text, url);
  } catch (error) {
    throw new HubError(`${url} did not answer with JSON; is ${address.endpoint} a hub?`, { cause: error });
  }
  const { siblings, sha } = parseConfig(url, listing, value);
  return { names: siblings.map((file) => file.rfilename), commit: sha };
}

const companions = new Set([
  CONFIG,
  'generation_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'tokenizer.json',
  'tokenizer.model',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.json',
  'chat_template.jinja',
]);
const safetensors = /^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/;
const torch = /^pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?$/;
const isWeights = (name: string): boolean => /\.(safetensors|bin|pth)$/.test(name);

/** The files that loadModel reads, small ones first; safetensors are preferred to torch's files. MiniGPT-4's set has folders and .pth files. */
export function neededFiles(names: readonly string[]): string[] {
  const miniGpt4 = names.includes('model_config.yaml') && !names.includes('config.json');
  const folders = new Map<string, string[]>();
  for (const name of names) {
    const parts = name.split('/');
    if (!isPlainName(name) || (parts.length > 1 && !miniGpt4)) continue;
    const folder = parts.slice(0, -1).join('/');
    folders.set(folder, [...(folders.get(folder) ?? []), parts.at(-1)!]);
  }
  const chosen = [...folders].flatMap(([folder, files]) => {
    const single = files.includes('model.safetensors');
    const weights = files.some((file) => safetensors.test(file)) ? safetensors : torch;
    const isShard = (file: string): boolean => /-\d+-of-\d+|\.index\.json$/.test(file);
    return files
      .filter(
        (file) =>
          companions.has(file) ||
          (weights.test(file) && !(weights === safetensors && single && isShard(file))) ||
          (miniGpt4 && folder === '' && /\.(yaml|json|pth)$/.test(file)),
      )
      .map((file) => (folder === '' ? file : `${folder}/${file}`));
  });
  return chosen.sort((a, b) => Number(isWeights(a)) - Number(isWeights(b)) || (a < b ? -1 : 1));
}

/** Size and content hash of a file, as far as the hub tells them before the download. */
async function probe(address: HubAddress, name: string, signal: AbortSignal | undefined): Promise<RemoteFile> {
  const url = `${address.endpoint}/${address.id}/resolve/${encodeURIComponent(address.revision)}/${name.split('/').map(encodeURIComponent).join('/')}`;
  const answer = await hubRequest(address, url, { method: 'HEAD', signal }).catch((error: HubError) => {
    // A plain file server may not know HEAD.
    if (error.status !== 405 && error.status !== 501) throw error;
  });
  if (answer === undefined) return { name, url };
  const { response, linked } = answer;
  const etag = (linked.etag ?? response.headers.get('etag') ?? undefined)?.replace(/^W\//, '').replaceAll('"', '');
  const size = Number(linked.size ?? response.headers.get('content-length') ?? Number.NaN);
  return {
    name,
    url,
    etag,
    ...(Number.isSafeInteger(size) && size >= 0 ? { size } : {}),
    ...(etag !== undefined && /^[0-9a-f]{64}$/.test(etag) ? { sha256: etag } : {}),
  };
}

function bytesThere(out: string, { name, size }: RemoteFile): number {
  const of = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  return of(join(out, name)) === size ? (size ?? 0) : of(partOf(out, name));
}

function existingParent(path: string): string {
  return existsSync(path) ? path : existingParent(dirname(path));
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;
const some = (names: readonly string[]): string =>
  `${names.slice(0, 6).join(', ')}${names.length > 6 ? ` and ${names.length - 6} more` : ''}`;
