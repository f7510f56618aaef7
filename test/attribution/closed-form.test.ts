/** The closed form of visual attribution against the module run again for every perturbed token, over random shapes and weights. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { attentionInput, influence, visibleUpTo } from '../../src/attribution/influence.ts';
import { contributionOf } from '../../src/attribution/visual-attribution.ts';
import { f32, i64, input, mul, type Tensor } from '../../src/graph/index.ts';
import type { Decoder } from '../../src/models/architecture.ts';
import { loadModel } from '../../src/models/load.ts';
import { Weights } from '../../src/nn/weights.ts';
import { Random } from '../../src/random.ts';
import { sharedDir } from '../shared.ts';
import { compileRandom, decoderOf, directContribution, randomWeights, type Shape } from './direct.ts';

const modern = join(sharedDir, 'fixtures-modern');
const sharing = Object.fromEntries(
  [
    ['linear keys', 'mini-llava'],
    ['learned positions', 'mini-blip2-opt'],
    ...['gemma3', 'qwen3_vl', 'qwen2_5_vl'].map((family) => [family, join(modern, `tiny-${family}`)] as const),
  ].flatMap(([kind, dir]) => (dir!.startsWith('mini-') || existsSync(dir!) ? [[kind!, loadModel(dir!, { threads: 1 })]] : [])),
);
afterAll(async () => {
  for (const model of Object.values(sharing)) await model.release();
});

/** C [t, s] in closed form. */
async function closedForm(
  decoder: Decoder,
  weightOf: ReturnType<typeof randomWeights>,
  state: Tensor<'float32'>,
  tokens: readonly number[],
  noise: Tensor<'float32'>,
  end: number,
  hidden: boolean,
): Promise<Float32Array> {
  const [l, d] = state.shape as [number, number];
  const w = new Weights();
  const x = input('state', ['b', 'l', d]);
  const program = await compileRandom(
    {
      c: mul(
        influence(
          decoder,
          0,
          w,
          hidden ? attentionInput(decoder, 0, w, x) : x,
          input('positions', ['b', 'l'], 'int64'),
          input('tokens', ['t'], 'int64'),
          input('noise', ['b', 't', 's', d]),
          input('ends', ['b'], 'int64'),
          input('visible', ['b', 'l']),
          hidden ? x : undefined,
        ),
        0.5,
      ),
    },
    weightOf,
  );
  const out = await program.run({
    state: f32(state.data, [1, l, d]),
    positions: i64(
      Array.from({ length: l }, (_, i) => i),
      [1, l],
    ),
    tokens: i64(tokens, [tokens.length]),
    noise: f32(noise.data, [1, ...noise.shape]),
    ends: i64([end], [1]),
    visible: visibleUpTo([end], l),
  });
  await program.release();
  return out.c!.data as Float32Array;
}

interface Compared {
  difference: number;
  largestShare: number;
  values: number[];
  closed: Float32Array;
}

async function compare(
  shape: Shape & { draws: number; hidden: boolean; sharpness: number; noise: number; end: number; seed: number },
  tokens: readonly number[],
): Promise<Compared> {
  const decoder = decoderOf(shape);
  const d = decoder.hidden;
  const random = new Random(shape.seed);
  const weightOf = randomWeights(String(shape.seed), shape.sharpness);
  const state = f32(random.normals(shape.length * d), [shape.length, d]);
  const noise = f32(random.normals(tokens.length * shape.draws * d, shape.noise), [tokens.length, shape.draws, d]);
  const { values, largestShare } = await directContribution(decoder, weightOf, state, tokens, noise, shape.end, shape.hidden);
  const closed = await closedForm(decoder, weightOf, state, tokens, noise, shape.end, shape.hidden);
  const difference = values.reduce((worst, v, i) => Math.max(worst, Math.abs(v - closed[i]!)), 0);
  return { difference, largestShare, values, closed };
}

test('the closed form equals the direct path for any shape', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        kind: fc.constantFrom('llama' as const, 'opt' as const),
        heads: fc.integer({ min: 1, max: 3 }),
        share: fc.integer({ min: 1, max: 2 }),
        width: fc.constantFrom(4, 8, 16),
        length: fc.integer({ min: 2, max: 12 }),
        draws: fc.integer({ min: 1, max: 3 }),
        hidden: fc.boolean(),
        sharpness: fc.constantFrom(0, 1, 5, 40),
        noise: fc.constantFrom(0.01, 0.7, 3),
        end: fc.nat(),
        seed: fc.nat(),
      }),
      async (drawn) => {
        const end = drawn.end % drawn.length;
        // Every position, also those that the query does not see; not the query's own, whose noise would move the query too.
        const tokens = Array.from({ length: drawn.length }, (_, i) => i).filter((i) => i !== end);
        const { difference, closed } = await compare({ ...drawn, end }, tokens);
        // Scores of hundreds leave fewer digits to the softmax of both paths.
        expect(difference).toBeLessThan(drawn.sharpness > 5 ? 2e-4 : 2e-6);
        for (let i = 0; i < closed.length; i++) expect(closed[i]).toBeGreaterThanOrEqual(0);
      },
    ),
    { numRuns: 25, seed: 7 },
  );
});

test.each([false, true])('one token that holds nearly all the attention (noise before the norm: %s)', async (hidden) => {
  // Nearly all of the attention lies on one token: where the textbook form subtracts e^s from a sum that is almost e^s.
  const shape = {
    kind: 'llama',
    heads: 2,
    share: 1,
    width: 16,
    length: 9,
    draws: 4,
    sharpness: 100,
    noise: 1.5,
    end: 8,
    seed: 3,
  } as const;
  const { difference, largestShare, values } = await compare({ ...shape, hidden }, [0, 1, 2, 3, 4, 5, 6, 7]);
  expect(largestShare).toBeGreaterThan(0.999999);
  expect(Math.max(...values)).toBeGreaterThan(0.05);
  expect(difference).toBeLessThan(2e-4);
});

test('a token that the query does not see contributes nothing, and the only token that it sees keeps the weight', async () => {
  const shape = { kind: 'llama', heads: 2, share: 1, width: 8, length: 6, draws: 2, sharpness: 1, noise: 1, seed: 5 } as const;
  const later = await compare({ ...shape, hidden: false, end: 2 }, [3, 4, 5]);
  for (const c of later.closed) expect(c).toBeLessThan(1e-12);
  const alone = await compare({ ...shape, hidden: false, end: 0 }, [0]);
  expect(alone.closed[0]).toBeGreaterThan(1e-3);
  expect(alone.difference).toBeLessThan(2e-6);
});

test('noise that all tokens share has a form of its own, which says the same: with keys that are linear, normed, and of rotated positions', async () => {
  for (const [kind, model] of Object.entries(sharing)) {
    const { decoder, fingerprint } = model;
    expect(fingerprint).toBeTruthy();
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          draws: fc.integer({ min: 1, max: 6 }),
          sigma: fc.constantFrom(0.01, 0.7, 5),
          loud: fc.constantFrom(0.3, 1, 6),
          seed: fc.nat(),
        }),
        async ({ draws, sigma, loud, seed }) => {
          const random = new Random(seed);
          const l = 2 + random.int(20);
          const end = l - 1;
          const d = decoder.hidden;
          const tokens = Array.from({ length: end }, (_, i) => i);
          const state = f32(random.normals(l * d, loud), [l, d]);
          const noise = f32(random.normals(draws * d, sigma), [draws, d]);
          const each = new Float32Array(tokens.length * draws * d);
          for (const token of tokens) each.set(noise.data, token * draws * d);
          const layer = random.int(decoder.layers);
          const together = await contributionOf(model, layer, state, tokens, noise, end);
          const alone = await contributionOf(model, layer, state, tokens, f32(each, [tokens.length, draws, d]), end);
          together.data.forEach((value, i) => {
            expect(Math.abs(value - alone.data[i]!), `${kind}, seed ${seed}`).toBeLessThan(2e-5);
            expect(value).toBeGreaterThanOrEqual(0);
          });
        },
      ),
      { numRuns: 10, seed: 11 },
    );
  }
});
