/** A new backbone: each patch of the picture goes through one linear map into a LLaMA, without an image encoder between them. */
import { afterAll, expect, test } from 'vitest';
import { moduleContribution } from '../../src/attribution/module-contribution.ts';
import { visualAttribution } from '../../src/attribution/visual-attribution.ts';
import { editorNamed } from '../../src/editors/index.ts';
import { f32, scope, sizeOf } from '../../src/graph/index.ts';
import { unedited } from '../../src/models/answer.ts';
import type { Architecture, FixedPictures } from '../../src/models/architecture.ts';
import { patchEmbedding } from '../../src/models/clip-vit.ts';
import { type LlamaConfig, llama } from '../../src/models/llama.ts';
import { weightShapes } from '../../src/models/load.ts';
import { cellOf, fixedPixels, pieces } from '../../src/models/pictures.ts';
import { Vlm } from '../../src/models/vlm.ts';
import { linear } from '../../src/nn/layers.ts';
import { Random } from '../../src/random.ts';
import { cpuEngine } from '../../src/runtime/node.ts';

const [size, patch, features] = [12, 4, 24];

function patchLlama(text: LlamaConfig): Architecture {
  const side = size / patch;
  const fixed: FixedPictures = { count: side * side, grid: [side, side], size: [size, size] };
  return {
    name: 'patch-llama',
    decoder: llama(text, 'language_model.'),
    fixed,
    afterPicture: '',
    layout: (parts, codec) => pieces(parts, codec, 'text'),
    pixels: () => fixedPixels(fixed),
    vision: ({ pixels }, w, sites) =>
      scope('vision', () => {
        const kernel = w.get('patches.weight', [features, 3, patch, patch]);
        const seen = sites.site('vision.features', patchEmbedding(pixels!, kernel, patch));
        return sites.site('visual', linear(w, 'projection', seen, features, text.hidden_size));
      }),
  };
}

const architecture = patchLlama({
  ...{ hidden_size: 32, intermediate_size: 48, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 4 },
  ...{ vocab_size: 28, hidden_act: 'silu', rms_norm_eps: 1e-5, rope_theta: 10000, rope_scaling: null },
  ...{ max_position_embeddings: 64, tie_word_embeddings: false, attention_bias: false, mlp_bias: false },
});

// Letters as tokens, and weights from a seed; a published model has a loader of its own in src/models/load.ts.
const letters = ' abcdefghijklmnopqrstuvwxyz?';
const random = new Random('patch-llama');
const shapes = weightShapes(architecture);
const stored = new Map([...shapes].map(([name, shape]) => [name, f32(random.normals(sizeOf(shape), 0.2), shape)]));
const vlm = new Vlm({
  name: 'patch-llama',
  architecture,
  engine: cpuEngine,
  weights: (name) => stored.get(name),
  codec: {
    encode: (text) => [...text.toLowerCase()].map((letter) => Math.max(0, letters.indexOf(letter))),
    decode: (ids) => ids.map((id) => letters[id]).join(''),
  },
  processor: ({ data, width, height }) => ({
    ...{ count: 9, grid: [3, 3] },
    regionOf: (cell) => cellOf({ left: 0, top: 0, width, height }, [3, 3], cell),
    pixels: () => ({
      pixels: f32(
        Float32Array.from({ length: 3 * size * size }, (_, i) => (data[i] ?? 0) / 255),
        [3, size, size],
      ),
    }),
  }),
  eosIds: [],
  fingerprint: () => 'patch-llama 1',
  compileOptions: { threads: 1 },
});
afterAll(() => vlm.release());

const image = { width: size, height: size, data: Uint8Array.from({ length: 3 * size * size }, () => random.int(256)) };
const prompt = 'what is there?';

test('every weight that the architecture reads has a shape', () => {
  expect(shapes.get('projection.weight')).toEqual([32, features]);
  expect([...shapes.keys()].filter((name) => name.startsWith('language_model.model.layers.2.'))).not.toEqual([]);
});

test('it answers, and the picture matters', async () => {
  const dark = { ...image, data: new Uint8Array(image.data.length) };
  const [a, b] = await unedited(vlm).answerTargets([image, dark].map((picture) => ({ image: picture, prompt, target: 'cat' })));
  expect(a!.logProbs).not.toEqual(b!.logProbs);
  const [said] = await unedited(vlm).generate([{ image, prompt }], { maxNewTokens: 4 });
  expect(said!.tokenIds).toHaveLength(4);
});

test('both attributions and an editor work on it as they are', async () => {
  const batch = await vlm.batch([vlm.layout({ prompt, image })]);
  const [modules] = await moduleContribution(vlm, batch);
  expect(modules!.contribution.attn).toHaveLength(3);
  const { values } = await visualAttribution(vlm, batch, { layer: 1, draws: 2, random });
  expect(values).toHaveLength(9);

  const ftV = await editorNamed('ft-v');
  const query = { image, prompt, target: 'cat' };
  const [edit] = await ftV.edit(vlm, [query], undefined, { steps: 3 });
  const [before, after] = [await unedited(vlm).answerTargets([query]), await ftV.with(vlm, [edit!]).answerTargets([query])];
  const sum = (logProbs: readonly number[]): number => logProbs.reduce((a, b) => a + b, 0);
  expect(sum(after[0]!.logProbs)).toBeGreaterThan(sum(before[0]!.logProbs));
});
