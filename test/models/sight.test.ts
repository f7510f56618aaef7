/** What tokens see where that is not all that stands before them: in every part of a program, and by every way to an answer. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/files/folder.ts';
import { openSafetensors } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { anyPicture, type RgbImage, type Segment } from '../../src/input/segments.ts';
import { type Query, unedited } from '../../src/models/answer.ts';
import type { Sight } from '../../src/models/architecture.ts';
import { batchShape, columnOf, type Part, sightFeeds } from '../../src/models/batch.ts';
import { generate } from '../../src/models/generate.ts';
import { type LoadOptions, loadModel } from '../../src/models/load.ts';
import { quantize } from '../../src/models/quantize.ts';
import type { Run, Sequence } from '../../src/models/sequence.ts';
import { biasInput, layerSight, sightNote, windowsOf } from '../../src/models/sight.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { devices } from '../../src/onnx/device.ts';
import { compile, engineFor } from '../../src/runtime/node.ts';
import { sharedDir } from '../shared.ts';
import { temporaryFolder } from '../tiny-world.ts';

/** An input of words and pictures in turn. */
function sequenceOf(parts: readonly (readonly [words: number, picture: number])[], words: number): Sequence {
  const spans: Run[][] = [];
  let length = 0;
  for (const [before, picture] of parts) {
    length += before;
    if (picture > 0) spans.push([[length, length + picture]]);
    length += picture;
  }
  length += words;
  const ids = new Array<number>(length).fill(0);
  return { ids, pictures: spans.map(() => anyPicture), spans, promptEnd: length - 1, targetIds: [] };
}

const sequence = fc
  .tuple(
    fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 5 })), { maxLength: 3 }),
    fc.integer({ min: 1, max: 6 }),
  )
  .map(([parts, words]) => sequenceOf(parts, words));
const sight = fc.record({
  windows: fc.array(fc.constantFrom(1, 2, 4, 7, Number.POSITIVE_INFINITY), { minLength: 1, maxLength: 4 }),
  wholePictures: fc.boolean(),
});

/** Whether a token sees another, both by their places in the input. */
function sees(of: Sequence, { wholePictures }: Sight, window: number, query: number, key: number): boolean {
  const inPicture = ([start, end]: Run): boolean => start <= query && query < end && start <= key && key < end;
  return (key <= query || (wholePictures && of.spans.flat().some(inPicture))) && key > query - window;
}

test('biases of whole inputs, and of the words alone, show what tokens see and no padding', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(sequence, { minLength: 1, maxLength: 3 }), sight, async (sequences, sight) => {
      const decoder = { sight };
      const shape = batchShape(sequences, true);
      const words = shape.length - shape.prefix;
      const biasOf = async (rows: number, earlier: number, part: Part): Promise<Tensor> => {
        const program = await compile({ bias: biasInput(decoder, 'b', rows, [earlier]) }, { threads: 1 });
        return (await program.run(sightFeeds(decoder, shape, part))).bias!;
      };
      const [all, ofWords] = [await biasOf(shape.length, 0, 'whole'), await biasOf(words, shape.prefix, 'text')];
      expect(all.shape).toEqual([sequences.length, windowsOf(decoder).length, shape.length, shape.length]);
      for (const [n, own] of sequences.entries())
        for (const [kind, window] of windowsOf(decoder).entries())
          for (let query = 0; query < own.ids.length; query++) {
            const row = columnOf(shape, n, query);
            const visible = new Set(
              own.ids.flatMap((_, key) => (sees(own, sight, window, query, key) ? [columnOf(shape, n, key)] : [])),
            );
            const expected = Array.from({ length: shape.length }, (_, column) => visible.has(column));
            const seenIn = ({ data, shape: [, kinds, rows, keys] }: Tensor, at: number): boolean[] =>
              Array.from({ length: keys! }, (_, key) => data[((n * kinds! + kind) * rows! + at) * keys! + key] === 0);
            expect(seenIn(all, row)).toEqual(expected);
            if (row >= shape.prefix) expect(seenIn(ofWords, row - shape.prefix)).toEqual(expected);
          }
    }),
    { numRuns: 25 },
  );
});

const modern = join(sharedDir, 'fixtures-modern');
describe.skipIf(!existsSync(modern))('Gemma 3', () => {
  const folder = join(modern, 'tiny-gemma3');
  const models: Vlm[] = [];
  const rounding = temporaryFolder();
  const opened = (options: LoadOptions = {}): Vlm => {
    const vlm = loadModel(folder, { device: 'cpu', threads: 1, ...options });
    models.push(vlm);
    return vlm;
  };
  afterAll(async () => {
    for (const vlm of models) await vlm.release();
    rmSync(rounding, { recursive: true });
  });

  const pictures = async (): Promise<RgbImage[]> =>
    Promise.all(['photo.jpg', 'grey.png', 'thin.png'].map((file) => decodeImage(join(modern, 'images', file))));

  /** Questions about two pictures, one and none, of several lengths. */
  async function asked(): Promise<Query[]> {
    const [photo, grey, thin] = (await pictures()) as [RgbImage, RgbImage, RgbImage];
    const both: Segment[] = [
      { text: 'Compare ' },
      { picture: photo },
      { text: ' with ' },
      { picture: grey },
      { text: ' and say which is darker' },
    ];
    return [
      { prompt: both, target: 'the grey one' },
      { prompt: 'What is this?', image: thin, target: 'a line' },
      { prompt: 'What colour does the left side of the picture have, and what does it show?', image: photo, target: 'x' },
      { prompt: 'What is an old horse?', target: 'a horse' },
    ];
  }

  test('an answer is the same step by step, in one run, layer by layer, asked together, and after what is shared', async () => {
    const queries = await asked();
    const options = { maxNewTokens: 24, eosIds: [] };
    const steps = opened();
    const alone = (await Promise.all(queries.map((query) => unedited(steps).generate([query], options)))).flat();
    expect(await unedited(steps).generate(queries, options)).toEqual(alone);
    const loop = opened({ behind: () => engineFor({ ...devices.cpu, wholeAnswers: true }) });
    expect(await unedited(loop).generate(queries, options)).toEqual(alone);
    const layered = opened({ residency: 'layered' });
    expect(await unedited(layered).generate(queries, options)).toEqual(alone);
    const sequences = queries.map(({ prompt, image }) => steps.layout({ prompt, image }));
    for (const [i, sequence] of sequences.entries())
      expect((await generate(steps, await steps.batch([sequence]), options))[0]).toEqual(alone[i]!.tokenIds);
  });

  test('a reader of its maps is told what its layers see', () => {
    const { decoder } = opened();
    expect(layerSight(decoder, 2)).toEqual({ window: null, bothDirections: true });
    expect(layerSight(decoder, 3)).toEqual({ window: 20, bothDirections: true });
    expect(sightNote(decoder, [0, 2, 3])).toMatch(/^Not causal: .*both directions.*; layer 0, 3 sees the last 20 tokens only/);
    expect([layerSight({}, 0), sightNote({}, [0])]).toEqual([undefined, undefined]);
  });

  test('its head, which is the embedding, is rounded as a weight of its own; the embedding keeps its floats', async () => {
    const out = join(rounding, 'rounded');
    await quantize(folder, { out, dtype: 'int8' });
    const names = openCheckpoint(out).names();
    const head = 'language_model.lm_head.weight';
    expect(names.filter((name) => name.startsWith(head))).toHaveLength(3);
    expect(names).toContain('language_model.model.embed_tokens.weight');
    const queries = (await asked()).slice(0, 2);
    const [floats, stored, atLoad] = [opened(), loadModel(out, { threads: 1 }), opened({ dtype: 'int8' })];
    models.push(stored);
    expect(stored.fingerprint).toBe(floats.fingerprint);
    expect(atLoad.fingerprint).toBe(floats.fingerprint);
    const probabilities = async (vlm: Vlm) =>
      (await unedited(vlm).answerTargets(queries)).flatMap(({ logProbs }) => [...logProbs]);
    const [exact, rounded] = [await probabilities(floats), await probabilities(stored)];
    expect(await probabilities(atLoad)).toEqual(rounded);
    expect(Math.max(...rounded.map((value, i) => Math.abs(value - exact[i]!)))).toBeLessThan(0.5);
  });

  test('masks are those of the reference', async () => {
    const vlm = opened();
    const { cases } = JSON.parse(readFileSync(join(modern, 'expected', 'tiny-gemma3', 'meta.json'), 'utf8')) as {
      cases: { input_ids: number[]; spans: [number, number][][] }[];
    };
    const { input_ids: ids, spans } = cases[3]!;
    const own = { ids, spans: spans.map((runs) => (typeof runs[0] === 'number' ? [runs as unknown as Run] : runs)) };
    const shape = batchShape([{ ...own, pictures: spans.map(() => anyPicture), promptEnd: ids.length - 1, targetIds: [] }]);
    const program = await compile({ bias: biasInput(vlm.decoder, 'b', 'l') }, { threads: 1 });
    const { bias } = await program.run(sightFeeds(vlm.decoder, shape));
    const tensors = openSafetensors(join(modern, 'expected', 'tiny-gemma3', 'tensors.safetensors'));
    const types = ['sliding_attention', 'full_attention'];
    for (const [kind, window] of windowsOf(vlm.decoder).entries()) {
      const mask = tensors.readTensor(`3.mask.${types[Number(window === Number.POSITIVE_INFINITY)]}`).data as Float32Array;
      const visible = (bias!.data as Float32Array)
        .subarray(kind * mask.length, (kind + 1) * mask.length)
        .map((x) => Number(x === 0));
      expect(visible).toEqual(mask);
    }
  });
});
