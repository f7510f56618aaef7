/** A new backbone: each patch of the picture goes through one linear map into a LLaMA, without an image encoder between them. */
import {
  type Architecture,
  cellOf,
  cpuEngine,
  editorNamed,
  type FixedPictures,
  fixedPixels,
  graph,
  type LlamaConfig,
  layers,
  llama,
  moduleContribution,
  patchEmbedding,
  pieces,
  Random,
  unedited,
  Vlm,
  visualAttribution,
  weightShapes,
} from 'visedit';

const { f32, scope, sizeOf } = graph;

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
        return sites.site('visual', layers.linear(w, 'projection', seen, features, text.hidden_size));
      }),
  };
}

const architecture = patchLlama({
  ...{ hidden_size: 32, intermediate_size: 48, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 4 },
  ...{ vocab_size: 28, hidden_act: 'silu', rms_norm_eps: 1e-5, rope_theta: 10000, rope_scaling: null },
  ...{ max_position_embeddings: 64, tie_word_embeddings: false, attention_bias: false, mlp_bias: false },
});

// Letters as tokens, and weights from a seed.
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

const image = { width: size, height: size, data: Uint8Array.from({ length: 3 * size * size }, () => random.int(256)) };
const prompt = 'what is there?';

function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(`it does not hold that ${what}`);
}
must(shapes.get('projection.weight')?.join() === `32,${features}`, 'every weight that the architecture reads has a shape');

// It answers, and the picture matters.
const dark = { ...image, data: new Uint8Array(image.data.length) };
const [a, b] = await unedited(vlm).answerTargets([image, dark].map((picture) => ({ image: picture, prompt, target: 'cat' })));
must(a!.logProbs.join() !== b!.logProbs.join(), 'another picture gives another answer');
const [said] = await unedited(vlm).generate([{ image, prompt }], { maxNewTokens: 4 });
must(said!.tokenIds.length === 4, 'it answers with four tokens');

// Both attributions and an editor work on it as they are.
const batch = await vlm.batch([vlm.layout({ prompt, image })]);
const [modules] = await moduleContribution(vlm, batch);
must(modules!.contribution.attn.length === 3, 'every layer has a contribution');
const { values } = await visualAttribution(vlm, batch, { layer: 1, protocol: 'paper', draws: 2, random });
must(values.length === 9, 'every patch has a value');

const ftV = await editorNamed('ft-v');
const query = { image, prompt, target: 'cat' };
const [edit] = await ftV.edit(vlm, [query], undefined, { steps: 3 });
const [before, after] = [await unedited(vlm).answerTargets([query]), await ftV.with(vlm, [edit!]).answerTargets([query])];
const sum = (logProbs: readonly number[]): number => logProbs.reduce((x, y) => x + y, 0);
must(sum(after[0]!.logProbs) > sum(before[0]!.logProbs), 'an edit makes its target more probable');
await vlm.release();
console.log('answered, attributed and edited');
