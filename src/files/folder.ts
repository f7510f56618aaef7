/** A published checkpoint folder: config.json beside model.safetensors, or beside an index and its shards. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import type { Tensor } from '../graph/dtype.ts';
import { parseConfig, readConfig } from './config.ts';
import { readJson } from './json.ts';
import { openSafetensors, type ReadOptions, type SafetensorsEntry, type SafetensorsFile } from './safetensors.ts';

/** Above this many bytes of tensors the fingerprint samples each tensor instead of reading all of it. */
const HASH_ALL_BELOW = 64 * 1024 * 1024;
const SAMPLES = 16;
const SAMPLE_BYTES = 4096;

export interface TensorPlace {
  readonly file: SafetensorsFile;
  readonly entry: SafetensorsEntry;
}

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string(), 'expected the shard of every tensor') });

export class Checkpoint {
  private hash: string | undefined;

  /** @param original the same tensors without second names, which the fingerprint is of */
  constructor(
    readonly dir: string,
    private readonly places: ReadonlyMap<string, TensorPlace>,
    private readonly original?: Checkpoint,
  ) {}

  names(): string[] {
    return [...this.places.keys()];
  }

  has(name: string): boolean {
    return this.places.has(name);
  }

  /** Where a tensor lies: for weights that are mapped from disk instead of read. */
  place(name: string): TensorPlace {
    const place = this.places.get(name);
    if (place) return place;
    const near = this.names().filter((other) => lastParts(other) === lastParts(name));
    const hint = near.length > 0 ? `; it has ${near.slice(0, 3).join(', ')}` : '';
    throw new Error(`${this.dir} has no tensor ${name}${hint}. Is this another kind of model, or a damaged copy?`);
  }

  get(name: string, shape: readonly number[] | undefined, options: ReadOptions & { as: 'float32' }): Tensor<'float32'>;
  get(name: string, shape?: readonly number[], options?: ReadOptions): Tensor;
  get(name: string, shape?: readonly number[], options: ReadOptions = {}): Tensor {
    const { file, entry } = this.place(name);
    if (shape && (shape.length !== entry.shape.length || shape.some((n, i) => n !== entry.shape[i])))
      throw new Error(
        `${file.path}: ${name} has shape [${entry.shape.join(', ')}], but config.json asks for [${shape.join(', ')}]`,
      );
    return file.readTensor(entry, options);
  }

  /**
   * The same tensors by other names.
   * @throws Error when two tensors would have one name
   */
  renamed(rename: (name: string) => string): Checkpoint {
    const places = new Map<string, TensorPlace>();
    const before = new Map<string, string>();
    for (const [name, place] of this.places) {
      const to = rename(name);
      if (places.has(to))
        throw new Error(`${this.dir} has both ${before.get(to)} and ${name}, which are one weight; remove one of them`);
      places.set(to, place);
      before.set(to, name);
    }
    return new Checkpoint(this.dir, places);
  }

  /** The same tensors, one of which has a second name. */
  withSecondName(of: string, name: string): Checkpoint {
    return new Checkpoint(this.dir, new Map([...this.places, [name, this.place(of)]]), this.original ?? this);
  }

  /** Throws one error that lists all of `names` that are missing. */
  require(names: Iterable<string>): void {
    const missing = [...names].filter((name) => !this.has(name));
    if (missing.length > 0) throw new Error(`${this.dir} lacks ${missing.length} tensors:\n  ${missing.join('\n  ')}`);
  }

  /**
   * SHA-256 over the tensors' names, types, shapes and bytes, whatever files they are in. Of large checkpoints only
   * ranges spread over every tensor are read: enough to tell models apart, not a proof against forgery.
   */
  fingerprint(): string {
    if (this.original) return this.original.fingerprint();
    if (this.hash) return this.hash;
    const hash = createHash('sha256');
    let total = 0;
    for (const { entry } of this.places.values()) total += entry.bytes;
    for (const name of this.names().sort()) {
      const { file, entry } = this.place(name);
      hash.update(JSON.stringify([name, entry.dtype, entry.shape]));
      if (total <= HASH_ALL_BELOW || entry.bytes <= SAMPLES * SAMPLE_BYTES) hash.update(file.readBytes(entry));
      else {
        const stride = (entry.bytes - SAMPLE_BYTES) / (SAMPLES - 1);
        for (let i = 0; i < SAMPLES; i++) hash.update(file.readBytes(entry, Math.floor(i * stride), SAMPLE_BYTES));
      }
    }
    this.hash = hash.digest('hex');
    return this.hash;
  }

  /** A JSON file of the folder, checked. */
  config<S extends z.ZodType>(name: string, schema: S): z.output<S> {
    return readConfig(join(this.dir, name), schema);
  }
}

/** The last two parts of a tensor's name: they survive a changed prefix. */
const lastParts = (name: string) => name.split('.').slice(-3).join('.');

/**
 * The tensors of a model folder: model.safetensors, or the shards that model.safetensors.index.json names. Nothing is read but headers.
 * @throws Error when the folder has neither, when a shard lies elsewhere or is missing, or when a file is damaged
 */
export function openCheckpoint(dir: string): Checkpoint {
  if (!existsSync(dir) || !statSync(dir).isDirectory())
    throw new Error(`${dir} is not a folder; a folder with config.json and model.safetensors is needed`);
  const single = join(dir, 'model.safetensors');
  const index = join(dir, 'model.safetensors.index.json');
  if (existsSync(single)) {
    const file = openSafetensors(single);
    return new Checkpoint(dir, new Map([...file.entries].map(([name, entry]) => [name, { file, entry }])));
  }
  if (existsSync(index)) return new Checkpoint(dir, shards(dir, index));
  const others = readdirSync(dir).filter((name) => /\.(bin|pth|pt|safetensors|gguf)$/.test(name));
  const found =
    others.length > 0 ? `; it has ${others.slice(0, 4).join(', ')}: \`visedit convert\` makes safetensors of torch files` : '';
  throw new Error(`${dir} has neither model.safetensors nor model.safetensors.index.json${found}`);
}

function shards(dir: string, index: string): Map<string, TensorPlace> {
  const { weight_map } = parseConfig(index, indexSchema, readJson(index));
  const files = new Map<string, SafetensorsFile>();
  const missing: string[] = [];
  for (const shard of [...new Set(Object.values(weight_map))].sort()) {
    if (shard !== basename(shard) || shard.startsWith('.'))
      throw new Error(`${index}: shard ${JSON.stringify(shard)} must be the name of a file in the same folder`);
    const path = join(dir, shard);
    if (existsSync(path)) files.set(shard, openSafetensors(path));
    else missing.push(shard);
  }
  if (missing.length > 0)
    throw new Error(
      `${dir} lacks ${missing.length} of the shards that ${basename(index)} lists: ${missing.join(', ')}; copy them too`,
    );
  const absent: string[] = [];
  const places = new Map<string, TensorPlace>();
  for (const [name, shard] of Object.entries(weight_map)) {
    const file = files.get(shard)!;
    const entry = file.entries.get(name);
    if (entry) places.set(name, { file, entry });
    else absent.push(`${name} (${shard})`);
  }
  if (absent.length > 0)
    throw new Error(`${index} lists ${absent.length} tensors that their shards do not hold:\n  ${absent.join('\n  ')}`);
  return places;
}
