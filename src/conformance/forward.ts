/** The model's own computation: embeddings, every layer, logits, greedy generation with the cache. */
import type { Tensor } from '../graph/dtype.ts';
import { generate } from '../models/generate.ts';
import { tolerances } from './checks.ts';
import { batchOf, type Subject } from './subject.ts';

export async function checkForward(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const { layers } = vlm.decoder;
  const { hidden, logits } = tolerances;
  const compared: [check: string, tolerance: number, site: string, tensor: string][] = [
    ['embeddings', hidden, 'embeddings', 'inputs_embeds'],
    ...Array.from({ length: layers }, (_, i): [string, number, string, string] => [
      'hidden',
      hidden,
      `layers.${i}.out`,
      `hidden.${i}`,
    ]),
    ['logits', logits, 'logits', 'logits'],
  ];
  for (const [c, { prompt, image }] of fixture.meta.cases.entries()) {
    const out = await vlm.run(
      { from: 0, to: layers, outputs: compared.map(([, , site]) => site) },
      await batchOf(subject, prompt, image),
    );
    for (const [check, tolerance, site, tensor] of compared) {
      const expected = fixture.tensor(`${c}.${tensor}`);
      if (expected !== undefined)
        checks.values(check, tolerance, `${c}.${tensor}`, (out[site] as Tensor<'float32'>).data, expected.data);
    }
  }
}

export async function checkGreedy(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  for (const [c, { prompt, image, greedy_ids, greedy_text }] of fixture.meta.cases.entries()) {
    if (greedy_ids === undefined) continue;
    // The reference's list holds an end token where one was said.
    const [ids] = await generate(vlm, await batchOf(subject, prompt, image), { maxNewTokens: greedy_ids.length, eosIds: [] });
    checks.equal('greedy.ids', `case ${c}`, ids!, greedy_ids);
    // The text of the expected ids, so that one check tells of the model and the other of the tokenizer.
    if (greedy_text !== undefined)
      checks.equal('greedy.text', `case ${c}`, [vlm.codec.decode(greedy_ids, { skipSpecial: false })], [greedy_text]);
  }
}
