/**
 * Causal tracing, patching and knock-out against the same interventions in plain PyTorch: scripts/interventions.py wrote the numbers, with hooks on
 * transformers' own modules.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { cutEdges } from '../../src/attribution/cut.ts';
import { nextToken } from '../../src/attribution/next-token.ts';
import { restore } from '../../src/attribution/tools/trace.ts';
import { deviation } from '../../src/attribution/visual-attribution.ts';
import { openSafetensors } from '../../src/files/safetensors.ts';
import { f32, type Tensor } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type Reading, readInput } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import { sharedDir } from '../shared.ts';

interface Numbers {
  readonly case: number;
  readonly key: number;
  readonly clean: number;
  readonly corrupted: number;
  readonly restored: readonly {
    readonly module: 'out' | 'attn.out' | 'mlp.out';
    readonly part: string;
    readonly places: readonly number[];
    readonly probability: readonly number[];
  }[];
  readonly cut: readonly {
    readonly edges: string;
    readonly queries: readonly number[];
    readonly keys: readonly number[];
    readonly layers: readonly number[];
    readonly probability: number;
  }[];
}

const fixtures = join(sharedDir, 'fixtures');

/** The wave that the script adds to the visual tokens. */
function corrupted(visual: Tensor<'float32'>): Tensor<'float32'> {
  const loud = 3 * deviation(visual.data) * Math.SQRT2;
  return f32(
    visual.data.map((value, i) => value + loud * Math.sin(i * 12.9898 + 0.5)),
    visual.shape,
  );
}

describe.skipIf(!existsSync(fixtures)).each(['tiny-llava', 'tiny-blip2-opt'])('%s', (name) => {
  test('states put back and edges cut give the probabilities that PyTorch gives', async () => {
    const numbers = JSON.parse(readFileSync(join(import.meta.dirname, `interventions/${name}.json`), 'utf8')) as Numbers;
    const expected = join(fixtures, 'expected', name);
    const meta = JSON.parse(readFileSync(join(expected, 'meta.json'), 'utf8')) as {
      cases: { prompt: string; image: string; visual_range: [number, number] }[];
    };
    const { prompt, image, visual_range: span } = meta.cases[numbers.case]!;
    const vlm = loadModel(join(fixtures, name), { threads: 1 });
    const d = vlm.decoder.hidden;
    const tensors = openSafetensors(join(expected, 'tensors.safetensors'));
    const embeddings = tensors.readTensor(`${numbers.case}.inputs_embeds`, { as: 'float32' });
    const seen = f32(embeddings.data.slice(span[0] * d, span[1] * d), [1, span[1] - span[0], d]);
    const read = await readInput(vlm, { prompt, image: await decodeImage(join(fixtures, 'images', image)) });
    const given = (visual: Tensor<'float32'>): Reading => ({
      ...read,
      batch: { ...read.batch, feeds: { ...read.batch.feeds, visual } },
    });
    const [clean, noisy] = [given(seen), given(corrupted(seen))];

    const parts = [...new Map(numbers.restored.map(({ part, places }) => [part, places]))].map(([part, places]) => ({
      ...{ name: part, places, kind: 'word' as const },
    }));
    const kinds = [...new Set(numbers.restored.map(({ module }) => module))];
    const found = await restore(vlm, clean, noisy, numbers.key, { kinds, parts });
    expect(found.clean).toBeCloseTo(numbers.clean, 4);
    expect(found.corrupted).toBeCloseTo(numbers.corrupted, 4);
    for (const { module, part, probability } of numbers.restored) {
      const row = found.restored[kinds.indexOf(module)]![parts.findIndex((one) => one.name === part)]!;
      probability.forEach((value, layer) => {
        expect(Math.abs(row[layer]! - value), `${module}, ${part}, layer ${layer}`).toBeLessThan(2e-4);
      });
    }
    for (const { edges, probability, ...cut } of numbers.cut) {
      const next = await nextToken(vlm, clean.batch, cutEdges(vlm, clean, cut));
      expect(Math.abs(next.probability(numbers.key) - probability), `${edges}, layers ${cut.layers}`).toBeLessThan(2e-4);
    }
    // Every kind of intervention changes something: numbers that are all alike would prove nothing.
    for (const { module } of numbers.restored) {
      const all = numbers.restored.filter((one) => one.module === module).flatMap(({ probability: own }) => own);
      expect(Math.max(...all) - Math.min(...all)).toBeGreaterThan(1e-3);
    }
    await vlm.release();
  });
});
