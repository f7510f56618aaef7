/**
 * The influence mapper's target (VisEdit Eq. 23): the visual attribution of Eq. 7 towards the edit prompt's last token, with the visual tokens
 * of a rel/gen sample in place, averaged over the traced layers L_h. Training never changes it, so it is computed once per record.
 */

import { influence } from '../../attribution/influence.ts';
import { add, concat, type Dim, input, mean, mul, type Node, slice } from '../../graph/index.ts';
import { deepInputs } from '../../models/deep.ts';
import { placeInputs, walk } from '../../models/forward.ts';
import { windowOf } from '../../models/sight.ts';
import { Sites } from '../../models/sites.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';

/** The input that says what the prompt's end sees in layers of one window. */
export const visibleName = (window: number): string => (window === Number.POSITIVE_INFINITY ? 'visible' : `visible.${window}`);

/**
 * Program with inputs edit and sample [e, l, d] (hidden states at the insert layer of the reliability and of the chosen sample, side by side in one
 * batch's columns), their positions and biases, tokens [t], noise.{i} [e, t, s, d] per traced layer, ends [e], visible [e, l] (see `visibleName`); output c [e, t], not
 * normalised. The first `prefix` columns of the mixed input are the sample's, the words behind them the edit's.
 */
export function influenceTargetGraph(
  { decoder }: Vlm,
  layer: number,
  traced: readonly number[],
  prefix: Dim,
): Record<string, Node> {
  const d = decoder.hidden;
  const w = new Weights();
  const run = (name: string): { sites: Sites; positions: Node } => {
    const { length: l, positions, bias } = placeInputs(decoder, prefix, 'e', `${name}.`);
    const sites = new Sites();
    walk(decoder, layer + 1, Math.max(...traced) + 1, input(name, ['e', l, d]), {
      ...{ weights: w, sites, positions, bias },
      deep: deepInputs(decoder, 'e', l, `${name}.`),
    });
    return { sites, positions };
  };
  const edit = run('edit');
  const sample = run('sample');
  const mix = (of: Node, from: Node, axis: number): Node =>
    concat([slice(from, axis, 0, prefix), slice(of, axis, prefix, of.dim(axis))], axis);
  const positions = mix(edit.positions, sample.positions, edit.positions.rank - 1);
  const tokens = input('tokens', ['t'], 'int64');
  const ends = input('ends', ['e'], 'int64');
  const perLayer = traced.map((i) => {
    const site = `layers.${i}.attn.in`;
    const mixed = mix(edit.sites.get(site), sample.sites.get(site), 1);
    const noise = input(`noise.${i}`, ['e', 't', 's', d]);
    const visible = input(visibleName(windowOf(decoder, i)), ['e', positions.dim(-1)]);
    return mean(influence(decoder, i, w, mixed, positions, tokens, noise, ends, visible), -1);
  });
  const total = perLayer.reduce((a, b) => add(a, b));
  return { c: mul(total, 1 / traced.length) };
}
