/** DualEdit with the reference's adapters: signals, gate values, where the adapters act, their layers' outputs and the changed logits. */
import { z } from 'zod';
import { dualEdit, dualRewrite, promptEnds, textStart } from '../../src/editors/dual-edit/dual-edit.ts';
import { type EditorWeights, modelId } from '../../src/editors/editor.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { tolerances } from './checks.ts';
import { expectedPart } from './fixture.ts';
import { batchOf, type Subject } from './subject.ts';

const runs = ['own_end', 'own_end_ungated', 'own_end_low'] as const;
const run = z.object({ text_range: z.tuple([z.int(), z.int()]), gate_similarity: z.number(), applied: z.boolean() });

const schema = z.object({
  config: z.object({
    text_layer: z.int(),
    vision_layer: z.int(),
    heads: z.int(),
    threshold: z.number(),
    low_threshold: z.number(),
  }),
  edit: z.object({ prompt: z.string(), target: z.string(), image: z.string() }),
  queries: z.array(
    z.object({
      name: z.string(),
      prompt: z.string(),
      target: z.string(),
      image: z.string().nullable(),
      own_prompt_end: z.int(),
      label_ids: z.array(z.int()),
      label_mask: z.array(z.number()),
      cosine: z.number(),
      cosine_last_prompt_token: z.number(),
      runs: z.object({ own_end: run, own_end_ungated: run, own_end_low: run }),
    }),
  ),
});

const gate = 1e-3;

export async function checkDualEdit(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const part = expectedPart(fixture, 'dual-edit', schema);
  if (part === undefined) return;
  const { meta, need, names } = part;
  const { text_layer: textLayer, vision_layer: visionLayer, heads, threshold } = meta.config;
  const prefix = 'weight.';
  const weights: EditorWeights = {
    editor: dualEdit.id,
    model: modelId(vlm),
    settings: { textLayer, visionLayer, heads, threshold },
    tensors: new Map(names.flatMap((name) => (name.startsWith(prefix) ? [[name.slice(prefix.length), need(name)]] : []))),
  };
  const request = { ...meta.edit, image: await fixture.picture(meta.edit.image) };
  const [edit] = await dualEdit.edit(vlm, [request], weights);
  for (const side of ['text', 'vision'])
    checks.values(
      'dual-edit.signal',
      tolerances.hidden,
      `edit.${side}_signal`,
      edit!.tensors.get(side)!.data,
      need(`edit.${side}_signal`).data,
    );
  const end = edit!.tensors.get('end')!.data;
  const n = vlm.decoder.vocabulary;
  const sites = { text: `layers.${textLayer}.out`, vision: `layers.${visionLayer}.out` };
  const read = { from: 0, to: visionLayer + 1, read: Object.values(sites) };

  for (const query of meta.queries) {
    const { name, prompt, target, image, label_ids: labels, label_mask: mask } = query;
    const asked = { prompt, image: image === null ? undefined : await fixture.picture(image) };
    const batch = await batchOf(subject, asked, target);
    const sequence = batch.sequences[0]!;
    checks.equal('dual-edit.prompt-end', name, [sequence.promptEnd], [query.own_prompt_end]);
    const hidden = await vlm.run(read, batch);
    for (const [side, site] of Object.entries(sites))
      checks.values(
        'dual-edit.hidden',
        tolerances.hidden,
        `${name}.hidden.${side}`,
        (hidden[site] as Tensor<'float32'>).data,
        need(`${name}.hidden.${side}`).data,
      );
    const [own] = await promptEnds(vlm, [vlm.layout(asked)], weights);
    const c = own!.reduce((sum, x, i) => sum + x * end[i]!, 0);
    checks.values('dual-edit.gate', gate, `${name}, cosine_last_prompt_token`, [c], [query.cosine_last_prompt_token]);
    const logitsOf = (all: Tensor<'float32'>, where: string, check: string): void => {
      const length = sequence.ids.length;
      labels.forEach((_, i) => {
        if (mask[i] !== 1) return;
        const row = length - labels.length + i;
        checks.values(
          check,
          tolerances.logits,
          where,
          all.data.subarray(row * n, (row + 1) * n),
          need(where).data.subarray(i * n, (i + 1) * n),
        );
      });
    };
    const before = await vlm.logits(batch);
    logitsOf(before, `${name}.logits.before`, 'dual-edit.logits-before');
    const rewrite = dualRewrite([{ edit: edit!, promptEnd: sequence.promptEnd }], batch);
    const after = await vlm.logits(batch, rewrite);
    const changed = await vlm.run(read, batch, {}, rewrite);
    for (const which of runs) {
      const { text_range: range, applied } = query.runs[which];
      checks.equal('dual-edit.text-range', `${name}, ${which}`, [textStart(sequence), sequence.promptEnd], range);
      logitsOf(applied ? after : before, `${name}.logits.${which}`, 'dual-edit.logits');
      if (!applied) continue;
      const compare = (side: 'text' | 'vision', tolerance: number): void =>
        checks.values(
          `dual-edit.${side}-out`,
          tolerance,
          `${name}.${side}_out.${which}`,
          (changed[sites[side]] as Tensor<'float32'>).data,
          need(`${name}.${side}_out.${which}`).data,
        );
      compare('text', tolerances.hidden);
      compare('vision', 2 * tolerances.hidden);
    }
    // The editor's own decision, which does not see the answer: what it says under the edit and without is one or the other.
    const acts = query.cosine_last_prompt_token >= threshold;
    const [said] = await dualEdit.with(vlm, [edit!]).answerTargets([{ ...asked, target }]);
    const logits = acts ? after : before;
    const expected = sequence.targetIds.map((id, i) => {
      const row = logits.data.subarray((sequence.promptEnd + i) * n, (sequence.promptEnd + i + 1) * n);
      const most = Math.max(...row);
      return row[id]! - most - Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0));
    });
    checks.values('dual-edit.decision', gate, name, said!.logProbs, expected);
  }
}
