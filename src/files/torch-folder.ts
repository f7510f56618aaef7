/** A checkpoint folder in safetensors or, where there is none, in torch's `pytorch_model.bin` or its shards. */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { readConfig } from './config.ts';
import { Checkpoint, openCheckpoint, type TensorPlace } from './folder.ts';
import { openTorch, type TorchFile } from './torch-pickle.ts';

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string(), 'expected the shard of every tensor') });

/** Every tensor of a file by its name, with a prefix before it. */
export function placesOf(file: TorchFile, prefix = ''): [string, TensorPlace][] {
  return [...file.entries].map(([name, entry]) => [prefix + name, { file, entry }]);
}

/** Opens the weights of a folder, whichever of the published formats they are in; safetensors are preferred. */
export function openWeights(dir: string): Checkpoint {
  const single = join(dir, 'pytorch_model.bin');
  const index = join(dir, 'pytorch_model.bin.index.json');
  const safetensors = ['model.safetensors', 'model.safetensors.index.json'].some((name) => existsSync(join(dir, name)));
  if (safetensors || !(existsSync(single) || existsSync(index))) return openCheckpoint(dir);
  if (existsSync(single)) return new Checkpoint(dir, new Map(placesOf(openTorch(single))));
  const { weight_map } = readConfig(index, indexSchema);
  const files = new Map<string, TorchFile>();
  for (const shard of new Set(Object.values(weight_map))) {
    if (shard !== basename(shard) || shard.startsWith('.'))
      throw new Error(`${index}: shard ${JSON.stringify(shard)} must be the name of a file in the same folder`);
    if (!existsSync(join(dir, shard)))
      throw new Error(`${dir} lacks the shard ${shard}, which ${basename(index)} lists; copy it too`);
    files.set(shard, openTorch(join(dir, shard)));
  }
  const places = new Map<string, TensorPlace>();
  for (const [name, shard] of Object.entries(weight_map)) {
    const file = files.get(shard)!;
    const entry = file.entries.get(name);
    if (entry === undefined) throw new Error(`${index} lists ${name}, but ${shard} does not hold it`);
    places.set(name, { file, entry });
  }
  return new Checkpoint(dir, places);
}
