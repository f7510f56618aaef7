/** Every model of the fixtures folder against the reference implementation: inputs, hidden states, logits, generation, attributions. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { moduleContribution } from '../../src/attribution/module-contribution.ts';
import { contributionOf } from '../../src/attribution/visual-attribution.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import type { Batch } from '../../src/models/batch.ts';
import { generate } from '../../src/models/generate.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { type Case, dataOf, difference, type Expected, expectedModels, expectedOf, pictureOf } from './fixtures.ts';

const HIDDEN = 1e-3;
const LOGITS = 2e-3;
const CONTRIBUTION = 1e-4;

describe.skipIf(expectedModels.length === 0).each(expectedModels.length > 0 ? expectedModels : ['none'])('%s', (name) => {
  let expected: Expected;
  let vlm: Vlm;
  const worst: Record<string, number> = {};
  const close = (what: string, actual: ArrayLike<number>, wanted: ArrayLike<number>, tolerance: number): void => {
    const d = difference(actual, wanted);
    worst[what] = Math.max(worst[what] ?? 0, d);
    expect(d, what).toBeLessThanOrEqual(tolerance);
  };
  const read = (key: string): Tensor<'float32'> => expected.tensors.readTensor(key, { as: 'float32' });

  beforeAll(() => {
    expected = expectedOf(name);
    vlm = loadModel(expected.dir, { threads: 1 });
  });
  afterAll(async () => {
    console.log(
      `${name}: largest differences ${Object.entries(worst)
        .map(([k, v]) => `${k} ${v.toExponential(1)}`)
        .join(', ')}`,
    );
    await vlm?.release();
  });

  /** The case's input with the stored pixel values. */
  async function batchOf(c: Case, index: number): Promise<Batch> {
    if (c.image === null) return vlm.batch([vlm.layout({ prompt: c.prompt })]);
    const own = vlm.processor(await pictureOf(c));
    const pixels = read(`${index}.pixel_values`);
    const image = vlm.pictureOf(`case ${index}`, () => ({ ...own, pixels: () => ({ pixels }) }));
    return vlm.batch([vlm.layout({ prompt: c.prompt, image })]);
  }

  test('sizes', () => {
    const { meta } = expected;
    const { decoder, architecture } = vlm;
    expect([decoder.layers, decoder.hidden, architecture.fixed!.count]).toEqual([
      meta.layers,
      meta.hidden_size,
      meta.visual_tokens,
    ]);
  });

  test('tokens and places of the picture', () => {
    for (const c of expected.meta.cases) {
      expect(vlm.codec.encode(c.prompt)).toEqual(c.prompt_input_ids);
      const sequence = vlm.layout({ prompt: c.prompt, image: c.image === null ? undefined : vlm.anyPicture });
      expect(sequence.spans[0]?.[0] ?? null).toEqual(c.visual_range);
      expect(sequence.promptEnd).toBe(sequence.ids.length - 1);
      const text = sequence.ids.filter((id) => id >= 0);
      // LLaVA's one list has the placeholder where the visual tokens stand.
      const fed = c.sequence_input_ids.flat();
      expect([text.length, text.length + 1]).toContain(fed.length);
      expect(text.every((id) => fed.includes(id))).toBe(true);
    }
  });

  test('pixel values', async () => {
    for (const [i, c] of expected.meta.cases.entries()) {
      if (c.image === null) continue;
      const pixels = vlm.processor(await pictureOf(c)).pixels().pixels as Tensor<'float32'>;
      const stored = read(`${i}.pixel_values`);
      expect(pixels.shape).toEqual(stored.shape);
      // One grey level of the least spread channel.
      close(
        'pixels (grey levels)',
        pixels.data.map((v) => v * 255 * 0.26),
        stored.data.map((v) => v * 255 * 0.26),
        0.5,
      );
    }
  });

  test('embeddings, hidden states, logits', async () => {
    const { layers } = vlm.decoder;
    const sites = ['embeddings', ...Array.from({ length: layers }, (_, i) => `layers.${i}.out`), 'logits'];
    for (const [i, c] of expected.meta.cases.entries()) {
      const out = await vlm.run({ from: 0, to: layers, read: sites }, await batchOf(c, i));
      close('embeddings', dataOf(out.embeddings), read(`${i}.inputs_embeds`).data, HIDDEN);
      for (let l = 0; l < layers; l++) close('hidden', dataOf(out[`layers.${l}.out`]), read(`${i}.hidden.${l}`).data, HIDDEN);
      close('logits', dataOf(out.logits), read(`${i}.logits`).data, LOGITS);
    }
  });

  test('greedy generation from the picture itself', async () => {
    for (const c of expected.meta.cases) {
      const image = c.image === null ? undefined : await pictureOf(c);
      const batch = await vlm.batch([vlm.layout({ prompt: c.prompt, image })]);
      const [ids] = await generate(vlm, batch, { maxNewTokens: c.greedy_ids.length, eosIds: [] });
      expect(ids).toEqual(c.greedy_ids);
      expect(vlm.codec.decode(ids!, { skipSpecial: false })).toBe(c.greedy_text);
    }
  });

  test('cases of one kind in one right-padded batch give the same tokens', async () => {
    const cases = expected.meta.cases.filter((c) => c.image !== null);
    const images = await Promise.all(cases.map(pictureOf));
    const batch = await vlm.batch(cases.map((c, i) => vlm.layout({ prompt: c.prompt, image: images[i]! })));
    const ids = await generate(vlm, batch, { maxNewTokens: 8, eosIds: [] });
    expect(ids).toEqual(cases.map((c) => c.greedy_ids));
  });

  test('module contributions towards the predicted and a wrong token', async () => {
    for (const [i, c] of expected.meta.cases.entries()) {
      const batch = await batchOf(c, i);
      for (const kind of ['key', 'wrong'] as const) {
        const wanted = c.module_contribution[kind];
        const [found] = await moduleContribution(vlm, batch, [kind === 'key' ? undefined : wanted.token_id]);
        expect(found!.tokenId).toBe(wanted.token_id);
        for (const part of ['attn', 'mlp', 'layer'] as const) {
          close('module probability', found!.prob[part], wanted.prob[part], CONTRIBUTION);
          close('module logit', found!.logit[part], wanted.logit[part], LOGITS);
        }
        for (const part of ['attn', 'mlp'] as const)
          close('module contribution', found!.contribution[part], wanted.contribution[part], CONTRIBUTION);
      }
    }
  });

  test('visual attribution in closed form', async () => {
    for (const [n, { case: i, layer }] of expected.meta.visual_attribution.entries()) {
      const c = expected.meta.cases[i]!;
      const batch = await batchOf(c, i);
      const site = `layers.${layer}.attn.in`;
      const out = await vlm.run({ from: 0, to: layer + 1, read: [site] }, batch);
      const input = read(`attribution.${n}.attention_input`);
      close('attention input', dataOf(out[site]), input.data, HIDDEN);
      const [start, end] = c.visual_range!;
      const tokens = Array.from({ length: end - start }, (_, t) => start + t);
      const found = await contributionOf(
        vlm,
        layer,
        input,
        tokens,
        read(`attribution.${n}.noise`),
        batch.sequences[0]!.promptEnd,
      );
      close('visual contribution', found.data, read(`attribution.${n}.contribution`).data, CONTRIBUTION);
    }
  });
});
