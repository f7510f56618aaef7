/**
 * The influence mapper's target (VisEdit Eq. 23): the visual attribution of Eq. 7 towards the edit prompt's last token, with the visual tokens
 * of a rel/gen sample in place, averaged over the traced layers L_h. Training never changes it, so it is computed once per record.
 */

import { influence } from '../../attribution/visual-attribution.ts';
import { add, concat, input, mean, mul, type Node, slice } from '../../graph/index.ts';
import { Sites } from '../../models/sites.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import type { Program } from '../../runtime/program.ts';

/**
 * Program with inputs edit [e, l, d] and sample [e, l2, d] (hidden states at the insert layer of the reliability and of the chosen sample),
 * their positions and biases, tokens [t], noise.{i} [e, t, s, d] per traced layer, ends [e], visible [e, l]; output c [e, t], not normalised.
 */
export function influenceTargetProgram(vlm: Vlm, layer: number, traced: readonly number[]): Promise<Program> {
  const { decoder, visualTokens: v } = vlm.architecture;
  const d = decoder.hidden;
  const start = vlm.visualStart;
  return vlm.program(`influence-target|${layer}|${traced.join()}`, () => {
    const w = new Weights();
    const run = (prefix: string, l: string): { sites: Sites; positions: Node } => {
      const positions = input(`${prefix}.positions`, ['e', l], 'int64');
      const bias = input(`${prefix}.bias`, ['e', 1, l, l]);
      const sites = new Sites();
      let x: Node = input(prefix, ['e', l, d]);
      for (let i = layer + 1; i <= Math.max(...traced); i++) x = decoder.layer(i, x, { weights: w, sites, positions, bias });
      return { sites, positions };
    };
    const edit = run('edit', 'l');
    const sample = run('sample', 'l2');
    const tokens = input('tokens', ['t'], 'int64');
    const perLayer = traced.map((i) => {
      const of = edit.sites.get(`layers.${i}.attn.in`);
      const from = sample.sites.get(`layers.${i}.attn.in`);
      const mixed = concat([slice(of, 1, 0, start), slice(from, 1, start, start + v), slice(of, 1, start + v, 'l')], 1);
      const noise = input(`noise.${i}`, ['e', 't', 's', d]);
      return mean(
        influence(
          decoder,
          i,
          w,
          mixed,
          edit.positions,
          tokens,
          noise,
          input('ends', ['e'], 'int64'),
          input('visible', ['e', 'l']),
        ),
        -1,
      );
    });
    return {
      c: mul(
        perLayer.reduce((a, b) => add(a, b)),
        1 / traced.length,
      ),
    };
  });
}
