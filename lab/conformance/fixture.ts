/**
 * A folder of conformance fixtures: models in their published layouts, pictures, edit records, and for each model what the reference
 * implementation computes (`expected/<model>/meta.json` and `tensors.safetensors`). Every part of meta.json and every tensor may be
 * missing; what is there is compared. Several model folders may share the expected values of one: meta.json lists them as `layouts`.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { readConfig } from '../../src/files/config.ts';
import { openSafetensors, type SafetensorsFile } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { layoutsSchema, type Meta, metaSchema, recordOf } from './meta.ts';

export type { Case, Meta } from './meta.ts';

export interface Fixture {
  readonly name: string;
  /** the folder of its expected values */
  readonly expected: string;
  /** the model's own folder */
  readonly folder: string;
  readonly meta: Meta;
  /** names of all expected tensors */
  readonly tensorNames: readonly string[];
  /** an expected tensor; undefined when the fixture has none of this name */
  tensor(name: string): Tensor<'float32'> | undefined;
  /** @throws Error that names the tensor when it is missing */
  need(name: string): Tensor<'float32'>;
  /** a picture of images/, decoded once */
  picture(file: string): Promise<RgbImage>;
  /** vqa_records.json, or the records that meta.json has itself */
  records(): readonly EditRecord[];
}

/** Model folders that a fixture folder has expected values for, and the folder of expected values of each. */
function modelFolders(dir: string): Map<string, string> {
  const expected = join(dir, 'expected');
  const found = existsSync(expected) ? readdirSync(expected).sort() : [];
  const folders = found.flatMap((name): [string, string][] => {
    const meta = join(expected, name, 'meta.json');
    return existsSync(meta) ? (readConfig(meta, layoutsSchema).layouts ?? [name]).map((folder) => [folder, name]) : [];
  });
  if (folders.length === 0)
    throw new Error(
      `${dir} is not a folder of conformance fixtures: there is no expected/<model>/meta.json in it; give the folder that holds expected/, images/ and the models`,
    );
  return new Map(folders);
}

/** Names of the model folders that a fixture folder has expected values for. */
export const fixtureModels = (dir: string): string[] => [...modelFolders(dir).keys()];

export function openFixture(dir: string, name: string): Fixture {
  const expected = join(dir, 'expected', modelFolders(dir).get(name) ?? name);
  const meta: Meta = readConfig(join(expected, 'meta.json'), metaSchema);
  const path = join(expected, 'tensors.safetensors');
  const file: SafetensorsFile | undefined = existsSync(path) ? openSafetensors(path) : undefined;
  const pictures = new Map<string, Promise<RgbImage>>();
  let records: readonly EditRecord[] | undefined;
  const tensor = (key: string): Tensor<'float32'> | undefined =>
    file?.has(key) ? file.readTensor(key, { as: 'float32' }) : undefined;
  return {
    name,
    expected,
    folder: join(dir, name),
    meta,
    tensorNames: file?.names() ?? [],
    tensor,
    need(key) {
      const found = tensor(key);
      if (found === undefined) throw new Error(`${path} has no tensor ${key}, which the expected values of meta.json need`);
      return found;
    },
    picture(image) {
      let picture = pictures.get(image);
      if (picture === undefined) {
        picture = decodeImage(join(dir, 'images', image), { orientation: 'stored' });
        pictures.set(image, picture);
      }
      return picture;
    },
    records() {
      records ??=
        meta.evaluation?.records?.map((raw, i) => recordOf(raw, i, join(dir, 'images'))) ??
        loadRecords(join(dir, 'vqa_records.json'), join(dir, 'images'), 'vqa');
      return records;
    },
  };
}

/** Expected values of one editor, in a folder of its own beside the model's. */
export interface ExpectedPart<M> {
  readonly meta: M;
  readonly names: readonly string[];
  /** @throws Error that names the tensor when it is missing */
  need(name: string): Tensor<'float32'>;
}

/** The values of expected/<model>/<part>; undefined when the fixture has none. */
export function expectedPart<M>({ expected }: Fixture, part: string, schema: z.ZodType<M>): ExpectedPart<M> | undefined {
  const path = join(expected, part, 'meta.json');
  if (!existsSync(path)) return undefined;
  const file = openSafetensors(join(expected, part, 'tensors.safetensors'));
  return {
    meta: readConfig(path, schema),
    names: file.names(),
    need: (name) => {
      if (!file.has(name)) throw new Error(`${file.path} has no tensor ${name}, which the expected values of meta.json need`);
      return file.readTensor(name, { as: 'float32' });
    },
  };
}
