/**
 * Contribution of single heads and MLPs: by how much the log odds of the key token, log p / (1 − p), fall when one part r of the last residual stream
 * is taken out: that of W_V norm(h[L]) less that of W_V norm(h[L] − r). It is a part's direct effect: what later layers make of it is not in it.
 */

import { z } from 'zod';
import { f32 } from '../../graph/dtype.ts';
import { logOdds } from '../../models/ranked-tokens.ts';
import { headParts } from '../head-parts.ts';
import { readStates } from './lens.ts';
import { defineTool, endOf, fixed, keyOf, layersOf } from './tool.ts';

export const heads = defineTool({
  id: 'heads',
  summary: 'how much each head and each MLP contributes to the answer directly',
  details:
    'Each head adds a part to the residual stream at the position that the answer is read from. The value is how much the log odds of the key token, log p / (1 - p), fall when this part is taken out of the last residual stream. Above 0: the head speaks for the token. What later layers make of the part is not counted; see trace and knockout.',
  options: z.object({ layers: z.string().default('all').describe('layers to show, such as 0,2,4 or 2-5, or all') }),
  async run(subject, { layers: given }) {
    const { vlm, reading } = subject;
    const key = await keyOf(subject);
    const layers = layersOf(given, vlm.decoder.layers);
    const end = endOf(reading);
    const { layers: count, heads: h, hidden: d } = vlm.decoder;
    const found = await headParts(vlm, reading, layers, end);
    const last = `layers.${count - 1}.out`;
    const mlps = layers.map((layer) => `layers.${layer}.mlp.out`);
    const states = await vlm.run({ from: 0, to: count, read: [last, ...mlps] }, reading.batch, {}, reading.rewrite);
    const at = (name: string): Float32Array => (states[name]!.data as Float32Array).subarray(end * d, (end + 1) * d);
    const whole = at(last);
    const taken = [
      ...found.flatMap(({ parts }) => Array.from({ length: h }, (_, i) => parts.data.subarray(i * d, (i + 1) * d))),
      ...mlps.map(at),
    ];
    const rows = new Float32Array((taken.length + 1) * d);
    [undefined, ...taken].forEach((part, i) => {
      for (let j = 0; j < d; j++) rows[i * d + j] = whole[j]! - (part?.[j] ?? 0);
    });
    const odds: number[] = [];
    await readStates(vlm, f32(rows, [taken.length + 1, d]), reading.rewrite, (_, logits) => odds.push(logOdds(logits, key.id)));
    const fall = odds.slice(1).map((value) => odds[0]! - value);
    const columns = [...Array.from({ length: h }, (_, i) => `head ${i}`), 'MLP'];
    const values = layers.map((_, i) => [...fall.slice(i * h, (i + 1) * h), fall[layers.length * h + i]!]);
    const ranked = values
      .flatMap((row, i) => row.map((value, c) => ({ value, name: `${columns[c]} of layer ${layers[i]}` })))
      .sort((a, b) => b.value - a.value);
    const matrix = { rows: layers.map(String), columns, values, what: `fall of the log odds of “${key.text}”` };
    return {
      key,
      said: [
        `Most for “${key.text}”: ${ranked
          .slice(0, 3)
          .map(({ name, value }) => `${name} (${value.toFixed(2)})`)
          .join(', ')}.`,
      ],
      table: { head: ['layer', ...columns], rows: values.map((row, i) => [layers[i]!, ...row.map((value) => fixed(value, 3))]) },
      matrix,
      data: { layers: layers.map((layer, i) => ({ layer, heads: values[i]!.slice(0, h), mlp: values[i]![h] })) },
      panels: [
        {
          kind: 'matrix',
          data: {
            ...{ rows: matrix.rows, columns: [...columns.slice(0, h).map((_, i) => `${i}`), 'MLP'], values },
            ...{ title: `What speaks for “${key.text}”`, rowTitle: 'Layer', columnTitle: 'Head' },
            scaleTitle: 'Fall of the log odds when it is taken out (nats)',
          },
        },
      ],
    };
  },
});
