/** Weights that are not finite numbers, and weights that change while they are mapped: both are said, with the file. */
import { mkdtempSync, readFileSync, renameSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { moduleContribution } from '../../src/attribution/module-contribution.ts';
import { trace } from '../../src/attribution/trace.ts';
import { visualAttribution } from '../../src/attribution/visual-attribution.ts';
import { openSafetensors, toFloat16, writeSafetensors } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { unedited } from '../../src/models/answer.ts';
import { hasNotFinite } from '../../src/models/finite.ts';
import { type LoadOptions, loadModel } from '../../src/models/load.ts';
import { quantize } from '../../src/models/quantize.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { randomPicture, writeRandomLlava } from '../tiny-model.ts';

const scratch = mkdtempSync(join(tmpdir(), 'visedit-finite-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
let count = 0;
const image = randomPicture('finite');
const query = { image, prompt: 'what is this?' };

/** A tiny model with one value changed. */
function broken(name: string, index: number, value: number, half = false): string {
  const dir = writeRandomLlava(join(scratch, String(count++)), { half });
  const path = join(dir, 'model.safetensors');
  const file = openSafetensors(path);
  const tensors = new Map([...file.entries.keys()].map((key): [string, Tensor] => [key, file.readTensor(key)]));
  const { dtype, shape, data } = tensors.get(name)!;
  (data as Float32Array)[index] = half ? toFloat16(Float32Array.of(value))[0]! : value;
  tensors.set(name, { dtype, shape, data } as Tensor);
  writeSafetensors(path, tensors);
  return dir;
}

async function using<T>(dir: string, options: LoadOptions, use: (vlm: Vlm) => Promise<T>): Promise<T> {
  const vlm = loadModel(dir, { threads: 1, ...options });
  try {
    return await use(vlm);
  } finally {
    await vlm.release();
  }
}

const batchOf = (vlm: Vlm) => vlm.batch([vlm.layout({ prompt: query.prompt, image: image })]);
const ways: [string, (vlm: Vlm) => Promise<unknown>][] = [
  ['generate', (vlm) => unedited(vlm).generate([query], { maxNewTokens: 3 })],
  ['teacher forcing', (vlm) => unedited(vlm).answerTargets([{ ...query, target: 'a dog' }])],
  ['attribute modules', async (vlm) => moduleContribution(vlm, await batchOf(vlm))],
  ['attribute modules of a given token', async (vlm) => moduleContribution(vlm, await batchOf(vlm), [5])],
  [
    'attribute visual',
    async (vlm) =>
      visualAttribution(vlm, await batchOf(vlm), { layer: 3, protocol: 'paper', draws: 4, random: new Random('noise') }),
  ],
  ['trace', (vlm) => trace(vlm, query, ['layers.*.out'])],
  ['trace of keys', (vlm) => trace(vlm, query, ['layers.3.attn.key'])],
];

describe.each([
  ['language_model.model.layers.2.mlp.up_proj.weight', 17, Number.NaN],
  ['language_model.model.layers.1.input_layernorm.weight', 3, Number.POSITIVE_INFINITY],
  ['language_model.model.norm.weight', 3, Number.NEGATIVE_INFINITY],
  ['multi_modal_projector.linear_2.weight', 40, Number.NaN],
])('%s with element %i of %d', (name, index, value) => {
  const said = new RegExp(`${name.replaceAll('.', '\\.')} in .*model\\.safetensors holds ${value} as element ${index} of \\[`);

  // States before the last norm do not read it.
  const reading = ways.filter(([way]) => !(/^trace|visual/.test(way) && name.endsWith('model.norm.weight')));
  test.each(reading)('%s', async (_, run) => {
    await using(broken(name, index, value), {}, (vlm) => expect(run(vlm)).rejects.toThrow(said));
  });

  test('half precision, layer by layer', async () => {
    for (const options of [{}, { residency: 'layered' }] as const)
      await using(broken(name, index, value, true), options, (vlm) => expect(ways[0]![1](vlm)).rejects.toThrow(said));
  });
});

test('rounding to whole numbers names file and weight, when it is opened and when it is written', async () => {
  const name = 'language_model.model.layers.2.mlp.up_proj.weight';
  const dir = broken(name, 17, Number.NaN);
  const said = new RegExp(`model\\.safetensors: ${name.replaceAll('.', '\\.')} cannot be rounded: .*not a finite number`);
  await using(dir, { dtype: 'int8' }, (vlm) => expect(ways[0]![1](vlm)).rejects.toThrow(said));
  await expect(quantize(dir, { out: join(scratch, 'rounded'), dtype: 'int8' })).rejects.toThrow(said);
});

test('values that become too large though all weights are finite', async () => {
  const dir = broken('language_model.model.layers.0.mlp.down_proj.weight', 0, 3e38);
  await using(dir, {}, (vlm) => expect(ways[0]![1](vlm)).rejects.toThrow(/though all weights are/));
});

test('a value that is not finite is found wherever it is', () => {
  fc.assert(
    fc.property(
      fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 40 }),
      fc.nat(),
      fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY),
      (values, at, bad) => {
        const data = Float32Array.from(values);
        expect(hasNotFinite(data)).toBe(false);
        data[at % data.length] = bad;
        expect(hasNotFinite(data)).toBe(true);
      },
    ),
  );
});

describe('weights that change while a model is open', () => {
  const changes: [string, (path: string) => void][] = [
    ['cut off', (path) => truncateSync(path, 1000)],
    [
      'overwritten in place',
      (path) => {
        const bytes = readFileSync(path);
        bytes.fill(7, bytes.length - 4000);
        writeFileSync(path, bytes);
      },
    ],
    [
      'replaced by another file of the same size and time',
      (path) => {
        const bytes = readFileSync(path);
        writeFileSync(`${path}.new`, bytes);
        renameSync(`${path}.new`, path);
      },
    ],
    ['touched', (path) => utimesSync(path, 1, 1)],
    ['removed', (path) => rmSync(path)],
  ];

  test.each(changes)('%s', async (_, change) => {
    for (const options of [{}, { residency: 'layered' }] as const) {
      const dir = writeRandomLlava(join(scratch, String(count++)));
      const path = join(dir, 'model.safetensors');
      await using(dir, options, async (vlm) => {
        await unedited(vlm).generate([query], { maxNewTokens: 2 });
        change(path);
        await expect(unedited(vlm).generate([query], { maxNewTokens: 2 })).rejects.toThrow(
          `${path} was changed after it was opened; open the model again`,
        );
      });
    }
  });

  test('between opening and the first program', async () => {
    const dir = writeRandomLlava(join(scratch, String(count++)));
    await using(dir, {}, async (vlm) => {
      truncateSync(join(dir, 'model.safetensors'), 1000);
      await expect(unedited(vlm).generate([query])).rejects.toThrow(/was changed after it was opened/);
    });
  });
});
