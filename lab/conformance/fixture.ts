/**
 * A folder of conformance fixtures: models in their published layouts, pictures, edit records, and for each model what the reference
 * implementation computes (`expected/<model>/meta.json` and `tensors.safetensors`). Every part of meta.json and every tensor may be
 * missing; what is there is compared.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readConfig } from '../../src/files/config.ts';
import { openSafetensors, type SafetensorsFile } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import type { RgbImage } from '../../src/input/segments.ts';

const whole = z.int().nonnegative();
const ids = z.array(z.int());
const perLayer = z.array(z.number());
const perModule = z.object({ attn: perLayer.optional(), mlp: perLayer.optional(), layer: perLayer.optional() });

const lens = z.object({
  token_id: whole,
  prob: perModule.optional(),
  logit: perModule.optional(),
  contribution: perModule.optional(),
});

const testCase = z.object({
  prompt: z.string(),
  image: z.string().nullish(),
  visual_range: z.tuple([whole, whole]).nullish(),
  prompt_input_ids: ids.optional(),
  sequence_input_ids: z.array(ids).optional(),
  greedy_ids: ids.optional(),
  greedy_text: z.string().optional(),
  module_contribution: z.object({ key: lens.optional(), wrong: lens.optional() }).optional(),
});

const query = z.object({
  name: z.string(),
  prompt: z.string(),
  target: z.string(),
  image: z.string().nullish(),
  label_ids: ids.optional(),
  label_mask: z.array(z.number()).optional(),
});

const accuracy = z.object({ acc: z.number() });

const trainingStep = z.object({
  records: z.array(whole),
  sampled_visual_tokens: z.array(whole),
  generality_choice: z.string(),
  loss: z.number().optional(),
  parts: z.record(z.string(), z.union([z.number(), z.record(z.string(), z.number())])).default({}),
});

const metaSchema = z.object({
  layers: whole.optional(),
  hidden_size: whole.optional(),
  visual_tokens: whole.optional(),
  cases: z.array(testCase).default([]),
  visual_attribution: z.array(z.object({ case: whole, layer: whole })).default([]),
  vead: z
    .object({
      edit_layer: whole,
      heads: whole,
      prompt_end: whole.optional(),
      edit: z.object({ prompt: z.string(), target: z.string(), image: z.string() }),
      queries: z.array(query).default([]),
    })
    .optional(),
  evaluation: z
    .object({
      mean: z
        .object({
          reliability: accuracy.optional(),
          generality: z.record(z.string(), accuracy).optional(),
          locality: z.record(z.string(), accuracy).optional(),
        })
        .optional(),
      per_record: z.array(z.record(z.string(), z.number())).optional(),
    })
    .optional(),
  training: z
    .object({
      config: z.object({
        lr: z.number(),
        rel: z.number(),
        gen: z.number(),
        loc: z.number(),
        influence_mapper: z.number(),
        traced_layers: z.array(whole),
      }),
      steps: z.array(trainingStep),
    })
    .optional(),
});

export type Meta = z.output<typeof metaSchema>;
export type Case = Meta['cases'][number];

export interface Fixture {
  readonly name: string;
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
  /** vqa_records.json */
  records(): readonly EditRecord[];
}

/** Names of the models that a fixture folder has expected values for. */
export function fixtureModels(dir: string): string[] {
  const expected = join(dir, 'expected');
  const found = existsSync(expected)
    ? readdirSync(expected)
        .filter((name) => existsSync(join(expected, name, 'meta.json')))
        .sort()
    : [];
  if (found.length === 0)
    throw new Error(
      `${dir} is not a folder of conformance fixtures: there is no expected/<model>/meta.json in it; give the folder that holds expected/, images/ and the models`,
    );
  return found;
}

export function openFixture(dir: string, name: string): Fixture {
  const expected = join(dir, 'expected', name);
  const meta = readConfig(join(expected, 'meta.json'), metaSchema);
  const path = join(expected, 'tensors.safetensors');
  const file: SafetensorsFile | undefined = existsSync(path) ? openSafetensors(path) : undefined;
  const pictures = new Map<string, Promise<RgbImage>>();
  let records: readonly EditRecord[] | undefined;
  const tensor = (key: string): Tensor<'float32'> | undefined =>
    file?.has(key) ? file.readTensor(key, { as: 'float32' }) : undefined;
  return {
    name,
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
      records ??= loadRecords(join(dir, 'vqa_records.json'), join(dir, 'images'), 'vqa');
      return records;
    },
  };
}
