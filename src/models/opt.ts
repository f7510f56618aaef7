/**
 * OPT (Zhang et al. 2022; reference: transformers 4.43 `modeling_opt.py`): LayerNorm before each module, learned positions, biased
 * projections, a ReLU MLP, the vocabulary matrix tied to the embeddings.
 * h[l] = h[l-1] + a[l] + m[l] (VisEdit Eq. 1), with m = fc2(relu(fc1(norm(h + a)))). Models of the 350m kind normalise after each module instead:
 * y = norm(h[l-1] + a[l]), h[l] = norm(y + m[l]), and have no norm before the vocabulary matrix.
 */

import { i64 } from '../graph/dtype.ts';
import { add, constant, expand, gather, layerNorm, matmul, type Node, scope } from '../graph/index.ts';
import { activations } from '../nn/activations.ts';
import { attend, attendRuns, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import type { Weights } from '../nn/weights.ts';
import type { Decoder, LayerContext } from './architecture.ts';
import type { OptConfig } from './configs/opt.ts';

/** The position table begins with rows that the reference never reads. */
const POSITION_OFFSET = 2;
const NORM_EPSILON = 1e-5;

/** @param prefix of the weight names, such as `language_model.` */
export function opt(config: OptConfig, prefix: string): Decoder {
  const { hidden_size: d, num_attention_heads: heads, vocab_size: vocabulary, ffn_dim: width, enable_bias: bias } = config;
  const { do_layer_norm_before: before, layer_norm_elementwise_affine: affine } = config;
  const act = activations[config.activation_function];
  const k = d / heads;
  const model = `${prefix}model.decoder`;
  const at = (i: number, name: string): string => `${model}.layers.${i}.${name}`;
  const norm = (w: Weights, name: string, x: Node): Node =>
    affine
      ? layerNorm(x, w.get(`${name}.weight`, [d]), w.get(`${name}.bias`, [d]), NORM_EPSILON)
      : layerNorm(x, expand(constant(1), [d]), expand(constant(0), [d]), NORM_EPSILON);
  const embedding = (w: Weights): Node => w.get(`${model}.embed_tokens.weight`, [vocabulary, d]);

  const project: Decoder['project'] = (i, x, _positions, w) => {
    const part = (name: string): Node => splitHeads(linear(w, at(i, `self_attn.${name}`), x, d, d, bias), heads);
    return { query: part('q_proj'), key: part('k_proj'), value: part('v_proj') };
  };
  const down: Decoder['down'] = (i, x, w) => linear(w, at(i, 'fc2'), x, width, d, bias);
  const output: Decoder['output'] = (i, x, w) => linear(w, at(i, 'self_attn.out_proj'), x, d, d, bias);
  const scale = k ** -0.5;

  const attention = (i: number, x: Node, { weights: w, sites, positions, bias: mask, blocks, past }: LayerContext): Node => {
    const { query, key, value } = project(i, x, positions, w);
    sites.site(`layers.${i}.attn.key`, key);
    sites.site(`layers.${i}.attn.value`, value);
    const runs = [...(past?.(i) ?? []), { key, value }];
    const [only] = runs;
    const seen =
      runs.length > 1 ? attendRuns(query, runs, scale, mask) : attend(query, only!.key, only!.value, scale, mask, blocks);
    return output(i, mergeHeads(seen), w);
  };

  return {
    layers: config.num_hidden_layers,
    hidden: d,
    heads,
    keyHeads: heads,
    headWidth: k,
    vocabulary,
    maxPositions: config.max_position_embeddings,
    scale,
    embed: (ids, w) => gather(embedding(w), ids),
    enter: (embeddings, positions, w) => {
      const table = w.get(`${model}.embed_positions.weight`, [config.max_position_embeddings + POSITION_OFFSET, d]);
      return add(embeddings, gather(table, add(positions, constant(i64([POSITION_OFFSET], [])))));
    },
    attention,
    project,
    output,
    down,
    layer: (i, x, context) =>
      scope(`layers.${i}`, () => {
        const { weights: w, sites } = context;
        /** A module with its norm before it, or after the sum. */
        const module = (name: string, x: Node, of: (x: Node) => Node): Node =>
          before ? add(x, of(norm(w, at(i, name), x))) : norm(w, at(i, name), add(x, of(x)));
        const middle = module('self_attn_layer_norm', x, (y) =>
          sites.site(`layers.${i}.attn.out`, attention(i, sites.site(`layers.${i}.attn.in`, y), context)),
        );
        const out = module('final_layer_norm', middle, (y) => {
          const z = act(linear(w, at(i, 'fc1'), sites.site(`layers.${i}.mlp.in`, y), d, width, bias));
          return sites.site(`layers.${i}.mlp.out`, down(i, sites.site(`layers.${i}.mlp.neurons`, z), w));
        });
        return sites.site(`layers.${i}.out`, out);
      }),
    head: (x, w) => {
      const normal = before && !config._remove_final_layer_norm ? norm(w, `${model}.final_layer_norm`, x) : x;
      const table = config.tie_word_embeddings ? embedding(w) : w.get(`${prefix}lm_head.weight`, [vocabulary, d]);
      return matmul(normal, table, false, true);
    },
  };
}
