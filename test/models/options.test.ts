/**
 * Every option of a configuration against the formulas of the reference implementation, written out in doubles: any combination of options
 * gives their numbers, and one that is not supported is refused by its name.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { z } from 'zod';
import { activation, parseConfig } from '../../src/files/config.ts';
import { f32, i64, input } from '../../src/graph/index.ts';
import type { Decoder } from '../../src/models/architecture.ts';
import { causalBias } from '../../src/models/batch.ts';
import { patchEmbedding } from '../../src/models/clip-vit.ts';
import { blip2Config } from '../../src/models/configs/blip2.ts';
import { llamaConfig, qwen2Config, qwen3Config, qwen3VlTextConfig, qwen25VlTextConfig } from '../../src/models/configs/llama.ts';
import { llavaConfig } from '../../src/models/configs/llava.ts';
import { optConfig } from '../../src/models/configs/opt.ts';
import { llama } from '../../src/models/llama.ts';
import { llava } from '../../src/models/llava.ts';
import { opt } from '../../src/models/opt.ts';
import { Sites } from '../../src/models/sites.ts';
import { activations } from '../../src/nn/activations.ts';
import { Weights } from '../../src/nn/weights.ts';
import { Random } from '../../src/random.ts';
import { compile } from '../../src/runtime/node.ts';
import { compileRandom, randomWeights } from '../attribution/direct.ts';
import { difference } from './difference.ts';

type Rows = number[][];
type WeightOf = ReturnType<typeof randomWeights>;

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const geluTanh = (x: number): number => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
/** P(x), the normal distribution function, by Simpson's rule. */
function normal(x: number): number {
  const steps = 200;
  const density = (t: number): number => Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
  let sum = density(0) + density(x);
  for (let i = 1; i < steps; i++) sum += (i % 2 === 1 ? 4 : 2) * density((x * i) / steps);
  return 0.5 + (sum * x) / steps / 3;
}
const formulas: Record<z.output<typeof activation>, (x: number) => number> = {
  gelu: (x) => x * normal(x),
  gelu_fast: geluTanh,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  relu: (x) => Math.max(0, x),
  silu: (x) => x * sigmoid(x),
  swish: (x) => x * sigmoid(x),
};
const names = activation.options;

test.each(names)('%s is its formula', async (name) => {
  const x = Float32Array.from({ length: 121 }, (_, i) => (i - 60) / 8);
  const program = await compile({ y: activations[name](input('x', ['n'])) }, { threads: 1 });
  const { y } = await program.run({ x: f32(x, [x.length]) });
  expect(difference(y!.data as Float32Array, [...x].map(formulas[name]))).toBeLessThan(2e-6);
  await program.release();
});

/** One decoder in doubles: its weights by name, bias only where `biased`. */
class Direct {
  constructor(readonly weightOf: WeightOf) {}
  vector = (name: string, n: number): number[] => [...this.weightOf(name, [n]).data];
  linear(name: string, x: Rows, out: number, biased: boolean): Rows {
    const width = x[0]!.length;
    const { data } = this.weightOf(`${name}.weight`, [out, width]);
    const bias = biased ? this.vector(`${name}.bias`, out) : undefined;
    return x.map((row) =>
      Array.from({ length: out }, (_, o) => row.reduce((sum, v, i) => sum + v * data[o * width + i]!, bias?.[o] ?? 0)),
    );
  }
}

const add = (a: Rows, b: Rows): Rows => a.map((row, i) => row.map((v, j) => v + b[i]![j]!));

/** Causal attention over heads of width k; each key head serves several query heads. */
function attention(q: Rows, key: Rows, value: Rows, k: number): Rows {
  const heads = q[0]!.length / k;
  const share = heads / (key[0]!.length / k);
  return q.map((row, at) =>
    Array.from({ length: heads }, (_, h) => {
      const from = Math.floor(h / share) * k;
      const scores = key.slice(0, at + 1).map((other) => {
        let dot = 0;
        for (let i = 0; i < k; i++) dot += row[h * k + i]! * other[from + i]!;
        return Math.exp(dot / Math.sqrt(k));
      });
      const total = scores.reduce((a, b) => a + b, 0);
      return Array.from({ length: k }, (_, i) => scores.reduce((sum, s, n) => sum + (s / total) * value[n]![from + i]!, 0));
    }).flat(),
  );
}

/** Pairs (j, j + k/2) of each head turned by position × frequency. */
const turned = (x: Rows, k: number, frequency: (j: number) => number, positionOf = (row: number, _j: number) => row): Rows =>
  x.map((row, place) =>
    row.map((v, i) => {
      const j = i % k;
      const angle = positionOf(place, j % (k / 2)) * frequency(j % (k / 2));
      const other = row[j < k / 2 ? i + k / 2 : i - k / 2]!;
      return v * Math.cos(angle) + (j < k / 2 ? -other : other) * Math.sin(angle);
    }),
  );

async function logitsOf(
  decoder: Decoder,
  ids: readonly number[],
  weightOf: WeightOf,
  at: readonly (readonly number[])[] = [[...ids.keys()]],
): Promise<Float32Array> {
  const weights = new Weights();
  const lead = decoder.positionAxes === undefined ? [] : [decoder.positionAxes];
  const positions = input('positions', [...lead, 'b', 'l'], 'int64');
  const context = { weights, sites: new Sites(), positions, bias: input('bias', ['b', 1, 'l', 'l']) };
  let x = decoder.enter(decoder.embed(input('ids', ['b', 'l'], 'int64'), weights), positions, weights);
  for (let i = 0; i < decoder.layers; i++) x = decoder.layer(i, x, context);
  const program = await compileRandom({ logits: decoder.head(x, weights) }, weightOf);
  const l = ids.length;
  const feeds = { ids: i64(ids, [1, l]), positions: i64(at.flat(), [...lead, 1, l]), bias: causalBias(1, l) };
  const out = (await program.run(feeds)).logits!.data as Float32Array;
  await program.release();
  return out;
}

const length = 7;
const vocab = 11;
const idsOf = (seed: number): number[] => {
  const random = new Random(seed);
  return Array.from({ length }, () => random.int(vocab));
};

/** Decoders that are options of one file, and what each has of its own. */
const decoders = {
  llama: { schema: llamaConfig },
  qwen2: { schema: qwen2Config, qkvBias: true },
  qwen3: { schema: qwen3Config, normed: true },
  qwen2_5_vl_text: { schema: qwen25VlTextConfig, qkvBias: true, axes: 3 },
  qwen3_vl_text: { schema: qwen3VlTextConfig, normed: true, axes: 3 },
} as const;

describe('a decoder with any options gives the numbers of the formulas', () => {
  test.each(Object.entries(decoders))(
    '%s',
    async (type, own: { schema: typeof llamaConfig; qkvBias?: true; normed?: true; axes?: 3 }) => {
      const scaling = fc.constantFrom(
        undefined,
        null,
        { type: 'linear', factor: 4 },
        { type: 'dynamic', factor: 2 },
        { rope_type: 'default' },
        {
          rope_type: 'llama3',
          factor: 8,
          low_freq_factor: 1,
          high_freq_factor: 4,
          original_max_position_embeddings: 64,
        },
      );
      const options = fc.record({
        keyHeads: fc.integer({ min: 1, max: 2 }),
        share: fc.integer({ min: 1, max: 3 }),
        k: fc.constantFrom(2, 4, 6),
        /** pairs of each axis, where positions have three */
        sections: fc.tuple(...[3, 3, 3].map((max) => fc.integer({ min: 1, max }))),
        places: fc.array(fc.tuple(fc.nat(40), fc.nat(40), fc.nat(40)), { minLength: length, maxLength: length }),
        /** by how much heads together are wider than the residual stream */
        wider: fc.integer({ min: 0, max: 3 }),
        intermediate_size: fc.integer({ min: 1, max: 9 }),
        num_hidden_layers: fc.integer({ min: 1, max: 2 }),
        hidden_act: fc.constantFrom(...names),
        rms_norm_eps: fc.constantFrom(1e-6, 1e-5, 0.1),
        rope_theta: fc.constantFrom(100, 10_000, 1e6),
        rope_scaling: scaling,
        attention_bias: fc.boolean(),
        mlp_bias: fc.boolean(),
        tie_word_embeddings: fc.boolean(),
        seed: fc.nat(),
      });
      await fc.assert(
        fc.asyncProperty(options, async ({ keyHeads, share, k: narrow, wider, seed, sections, places, ...given }) => {
          const k = own.axes === undefined ? narrow : 2 * sections.reduce((a, c) => a + c);
          const heads = keyHeads * share;
          const d = heads * k - wider > 0 ? heads * k - wider : heads * k;
          const config = parseConfig('config.json', own.schema, {
            ...given,
            ...(own.axes && { rope_scaling: { mrope_section: sections } }),
            hidden_size: d,
            num_attention_heads: heads,
            num_key_value_heads: keyHeads,
            head_dim: d === heads * k && !own.normed ? null : k,
            vocab_size: vocab,
            max_position_embeddings: 64,
          });
          const weightOf = randomWeights(String(seed), 1);
          const w = new Direct(weightOf);
          const act = formulas[config.hidden_act];
          const norm = (name: string, x: Rows): Rows => {
            const scale = w.vector(`${name}.weight`, x[0]!.length);
            return x.map((row) => {
              const root = Math.sqrt(row.reduce((s, v) => s + v * v, 0) / row.length + config.rms_norm_eps);
              return row.map((v, i) => (v / root) * scale[i]!);
            });
          };
          const normHeads = (name: string, x: Rows): Rows =>
            own.normed
              ? x.map((row) =>
                  norm(
                    name,
                    Array.from({ length: row.length / k }, (_, h) => row.slice(h * k, (h + 1) * k)),
                  ).flat(),
                )
              : x;
          const names = own.axes === undefined ? { model: 'model.', head: 'lm_head' } : { model: 'a.text.', head: 'b.head' };
          const axisOf = (j: number): number => {
            if (type !== 'qwen3_vl_text') return j < sections[0]! ? 0 : j < sections[0]! + sections[1]! ? 1 : 2;
            return [1, 2].find((axis) => j % 3 === axis && j < 3 * sections[axis]!) ?? 0;
          };
          const place = (row: number, j: number): number => (own.axes === undefined ? row : places[row]![axisOf(j)]!);
          const frequency = (j: number): number => {
            const f = config.rope_theta ** ((-2 * j) / k);
            const s = config.rope_scaling;
            if (s?.rope_type === 'linear') return f / s.factor;
            if (s?.rope_type !== 'llama3') return f;
            const turns = (64 * f) / (2 * Math.PI);
            const smooth = Math.min(1, Math.max(0, (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)));
            return (1 - smooth) * (f / s.factor) + smooth * f;
          };
          const ids = idsOf(seed);
          const table = weightOf(`${names.model}embed_tokens.weight`, [vocab, d]).data;
          let x: Rows = ids.map((id) => [...table.subarray(id * d, (id + 1) * d)]);
          for (let i = 0; i < config.num_hidden_layers; i++) {
            const at = `${names.model}layers.${i}`;
            const y = norm(`${at}.input_layernorm`, x);
            const part = (name: string, n: number): Rows =>
              w.linear(`${at}.self_attn.${name}`, y, n * k, own.qkvBias ?? config.attention_bias);
            const mixed = attention(
              turned(normHeads(`${at}.self_attn.q_norm`, part('q_proj', heads)), k, frequency, place),
              turned(normHeads(`${at}.self_attn.k_norm`, part('k_proj', keyHeads)), k, frequency, place),
              part('v_proj', keyHeads),
              k,
            );
            x = add(x, w.linear(`${at}.self_attn.o_proj`, mixed, d, config.attention_bias));
            const z = norm(`${at}.post_attention_layernorm`, x);
            const up = w.linear(`${at}.mlp.up_proj`, z, config.intermediate_size, config.mlp_bias);
            const gate = w.linear(`${at}.mlp.gate_proj`, z, config.intermediate_size, config.mlp_bias);
            const gated = up.map((row, r) => row.map((v, c) => v * act(gate[r]![c]!)));
            x = add(x, w.linear(`${at}.mlp.down_proj`, gated, d, config.mlp_bias));
          }
          const head = config.tie_word_embeddings ? `${names.model}embed_tokens` : names.head;
          const expected = w.linear(head, norm(`${names.model}norm`, x), vocab, false).flat();
          const decoder = llama(config, own.axes === undefined ? '' : names);
          const at = own.axes && [0, 1, 2].map((axis) => places.map((one) => one[axis]!));
          expect(difference(await logitsOf(decoder, ids, weightOf, at), expected)).toBeLessThan(2e-5);
        }),
        { numRuns: type === 'llama' ? 30 : 10, seed: 11 },
      );
    },
  );

  test('OPT', async () => {
    const options = fc.record({
      heads: fc.integer({ min: 1, max: 3 }),
      k: fc.integer({ min: 3, max: 6 }),
      ffn_dim: fc.integer({ min: 1, max: 9 }),
      num_hidden_layers: fc.integer({ min: 1, max: 2 }),
      activation_function: fc.constantFrom(...names),
      do_layer_norm_before: fc.boolean(),
      layer_norm_elementwise_affine: fc.boolean(),
      _remove_final_layer_norm: fc.boolean(),
      enable_bias: fc.boolean(),
      tie_word_embeddings: fc.boolean(),
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(options, async ({ heads, k, seed, ...given }) => {
        const d = heads * k;
        const config = parseConfig('config.json', optConfig, {
          ...given,
          hidden_size: d,
          num_attention_heads: heads,
          vocab_size: vocab,
          max_position_embeddings: length,
        });
        const { enable_bias: biased, do_layer_norm_before: before } = config;
        const weightOf = randomWeights(String(seed), 1);
        const w = new Direct(weightOf);
        const act = formulas[config.activation_function];
        const norm = (name: string, x: Rows): Rows => {
          const affine = config.layer_norm_elementwise_affine;
          const scale = affine ? w.vector(`${name}.weight`, d) : undefined;
          const shift = affine ? w.vector(`${name}.bias`, d) : undefined;
          return x.map((row) => {
            const mean = row.reduce((s, v) => s + v, 0) / d;
            const root = Math.sqrt(row.reduce((s, v) => s + (v - mean) ** 2, 0) / d + 1e-5);
            return row.map((v, i) => ((v - mean) / root) * (scale?.[i] ?? 1) + (shift?.[i] ?? 0));
          });
        };
        const ids = idsOf(seed);
        const words = weightOf('model.decoder.embed_tokens.weight', [vocab, d]).data;
        const places = weightOf('model.decoder.embed_positions.weight', [length + 2, d]).data;
        let x: Rows = ids.map((id, n) => Array.from({ length: d }, (_, i) => words[id * d + i]! + places[(n + 2) * d + i]!));
        for (let i = 0; i < config.num_hidden_layers; i++) {
          const at = `model.decoder.layers.${i}`;
          const module = (name: string, of: (y: Rows) => Rows): void => {
            x = before ? add(x, of(norm(`${at}.${name}`, x))) : norm(`${at}.${name}`, add(x, of(x)));
          };
          module('self_attn_layer_norm', (y) => {
            const part = (name: string): Rows => w.linear(`${at}.self_attn.${name}`, y, d, biased);
            const mixed = attention(part('q_proj'), part('k_proj'), part('v_proj'), k);
            return w.linear(`${at}.self_attn.out_proj`, mixed, d, biased);
          });
          module('final_layer_norm', (y) => {
            const inner = w.linear(`${at}.fc1`, y, config.ffn_dim, biased).map((row) => row.map(act));
            return w.linear(`${at}.fc2`, inner, d, biased);
          });
        }
        if (before && !config._remove_final_layer_norm) x = norm('model.decoder.final_layer_norm', x);
        const head = config.tie_word_embeddings ? 'model.decoder.embed_tokens' : 'lm_head';
        const expected = w.linear(head, x, vocab, false).flat();
        expect(difference(await logitsOf(opt(config, ''), ids, weightOf), expected)).toBeLessThan(2e-5);
      }),
      { numRuns: 30, seed: 12 },
    );
  });
});

test('patches are those of a convolution whose stride is its size: what is left over at the edge is not read', async () => {
  const sizes = fc.record({ patch: fc.integer({ min: 1, max: 4 }), size: fc.integer({ min: 4, max: 11 }), seed: fc.nat() });
  await fc.assert(
    fc.asyncProperty(sizes, async ({ patch, size, seed }) => {
      const d = 3;
      const random = new Random(seed);
      const pixels = f32(random.normals(3 * size * size), [1, 3, size, size]);
      const kernel = f32(random.normals(d * 3 * patch * patch), [d, 3, patch, patch]);
      const side = Math.floor(size / patch);
      const expected: number[] = [];
      for (let row = 0; row < side; row++)
        for (let column = 0; column < side; column++)
          for (let o = 0; o < d; o++) {
            let sum = 0;
            for (let c = 0; c < 3; c++)
              for (let y = 0; y < patch; y++)
                for (let x = 0; x < patch; x++)
                  sum +=
                    pixels.data[(c * size + row * patch + y) * size + column * patch + x]! *
                    kernel.data[((o * 3 + c) * patch + y) * patch + x]!;
            expected.push(sum);
          }
      const graph = patchEmbedding(input('pixels', [1, 3, size, size]), input('kernel', [d, 3, patch, patch]), patch);
      const program = await compile({ graph }, { threads: 1 });
      const out = (await program.run({ pixels, kernel })).graph!;
      await program.release();
      expect(out.shape).toEqual([1, side * side, d]);
      expect(difference(out.data as Float32Array, expected)).toBeLessThan(1e-5);
    }),
    { numRuns: 12, seed: 13 },
  );
});

describe('options', () => {
  const vision = { num_hidden_layers: 4, image_size: 60, patch_size: 14 };
  const configOf = (given: object) =>
    parseConfig('config.json', llavaConfig, { model_type: 'llava', vision_config: vision, ...given });

  test('the layer and the tokens that LLaVA takes from its image encoder', () => {
    expect(llava(configOf({})).fixed!.count).toBe(16);
    expect(llava(configOf({ vision_feature_select_strategy: 'full' })).fixed!.count).toBe(17);
    for (const layer of [-5, -1, 0, 4]) expect(() => configOf({ vision_feature_layer: layer })).not.toThrow();
    expect(configOf({ vision_feature_layer: [-3] }).vision_feature_layer).toBe(-3);
    expect(() => configOf({ vision_feature_layer: [-3, -2] })).toThrow(/vision_feature_layer: expected the number of one layer/);
    expect(() => configOf({ vision_feature_layer: 5 })).toThrow(/vision_feature_layer: expected -5 to 4: .* has 4 layers/);
    expect(() => configOf({ vision_feature_layer: -6 })).toThrow(/vision_feature_layer/);
  });

  test.each<[string, z.ZodType, object]>([
    ['rope_scaling', llamaConfig, { rope_scaling: { type: 'su', factor: 2 } }],
    ['rope_scaling', llamaConfig, { rope_scaling: { rope_type: 'longrope' } }],
    ['rope_parameters.rope_type', llamaConfig, { rope_parameters: { rope_type: 'mrope', mrope_section: [1, 1] } }],
    ['rope_parameters.rope_type', llamaConfig, { rope_parameters: { full_attention: { rope_type: 'default' } } }],
    ['rope_parameters.partial_rotary_factor', llamaConfig, { rope_parameters: { partial_rotary_factor: 0.5 } }],
    ['rope_theta', llamaConfig, { rope_parameters: { rope_theta: -1 } }],
    ['num_attention_heads', llamaConfig, { head_dim: 63 }],
    ['num_attention_heads', llamaConfig, { hidden_size: 9, num_attention_heads: 3 }],
    ['hidden_act', llamaConfig, { hidden_act: 'tanh' }],
    ['word_embed_proj_dim', optConfig, { word_embed_proj_dim: 512, hidden_size: 1024, num_attention_heads: 16 }],
    ['activation_function', optConfig, { activation_function: 'mish' }],
    ['patch_size', llavaConfig, { model_type: 'llava', vision_config: { image_size: 8, patch_size: 14 } }],
    [
      'position_embedding_type',
      blip2Config,
      { model_type: 'blip-2', qformer_config: { position_embedding_type: 'relative_key' } },
    ],
    ['use_decoder_only_language_model', blip2Config, { model_type: 'blip-2', use_decoder_only_language_model: false }],
  ])('what is not supported is named: %s', (name, schema, given) => {
    expect(() => parseConfig('config.json', schema, given)).toThrow(
      new RegExp(`config\\.json does not fit:\\n {2}[\\w.]*${name}`),
    );
  });
});
