/** The model's own computation: embeddings, every layer, logits, greedy generation with the cache. */
import type { Tensor } from '../../src/graph/dtype.ts';
import type { Batch } from '../../src/models/batch.ts';
import { generate } from '../../src/models/generate.ts';
import { biasInput, windowsOf } from '../../src/models/sight.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { compile } from '../../src/runtime/node.ts';
import { tolerances } from './checks.ts';
import { askedIn, batchOf, type Subject } from './subject.ts';
import { couldSay, logitsAt } from './undecided.ts';

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
  for (const [c, one] of fixture.meta.cases.entries()) {
    const out = await vlm.run(
      { from: 0, to: layers, read: compared.map(([, , site]) => site) },
      await batchOf(subject, await askedIn(subject, one)),
    );
    for (const [check, tolerance, site, tensor] of compared) {
      const expected = fixture.tensor(`${c}.${tensor}`);
      if (expected !== undefined)
        checks.values(check, tolerance, `${c}.${tensor}`, (out[site] as Tensor<'float32'>).data, expected.data);
    }
  }
}

/** What tokens see, where layers do not simply see all that stands before. */
export async function checkMasks(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const { decoder } = vlm;
  for (const [c, one] of fixture.meta.cases.entries()) {
    for (const [type, finite] of [
      ['sliding_attention', true],
      ['full_attention', false],
    ] as const) {
      const expected = fixture.tensor(`${c}.mask.${type}`);
      if (expected === undefined) continue;
      const kind = windowsOf(decoder).findIndex((window) => Number.isFinite(window) === finite);
      // The reference makes the masks of both types, also where no layer has one of them.
      if (kind < 0) continue;
      const batch = await batchOf(subject, await askedIn(subject, one));
      const program = await compile({ bias: biasInput(decoder, 'b', 'l') });
      const { bias } = await program.run(batch.feeds);
      await program.release();
      const size = batch.length ** 2;
      const seen = (bias!.data as Float32Array).subarray(kind * size, (kind + 1) * size);
      checks.equal(
        'masks',
        `${c}.mask.${type}`,
        Array.from(seen, (x) => Number(x === 0)),
        Array.from(expected.data),
      );
    }
  }
}

export async function checkGreedy(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  for (const [c, one] of fixture.meta.cases.entries()) {
    const { greedy_ids, greedy_text } = one;
    if (greedy_ids === undefined) continue;
    const asked = await askedIn(subject, one);
    const { said, undecided } = await greedyIds(vlm, (ids) => batchOf(subject, asked, undefined, ids), greedy_ids);
    checks.equal('greedy.ids', `case ${c}`, said, greedy_ids);
    for (const place of undecided) checks.note('greedy.ids', `case ${c}, token ${place}: two logits as good as equal`);
    if (greedy_text !== undefined)
      checks.equal('greedy.text', `case ${c}`, [vlm.codec.decode(said, { skipSpecial: false })], [greedy_text]);
  }
}

/**
 * What the model says; where rounding chooses between the expected token and another, the expected one, and on from there.
 * @param after the case's input with tokens after it
 */
async function greedyIds(
  vlm: Vlm,
  after: (ids: readonly number[]) => Promise<Batch>,
  expected: readonly number[],
): Promise<{ said: number[]; undecided: number[] }> {
  const undecided: number[] = [];
  let said: number[] = [];
  while (said.length < expected.length) {
    // The reference's list holds an end token where one was said.
    const [next] = await generate(vlm, await after(said), { maxNewTokens: expected.length - said.length, eosIds: [] });
    if (next!.length === 0) break;
    said = [...said, ...next!];
    const first = said.findIndex((id, i) => id !== expected[i]);
    if (first < 0) continue;
    const batch = await after(said.slice(0, first));
    const [logits] = await logitsAt(vlm, batch, [batch.length - 1]);
    if (!couldSay(logits!, expected[first]!)) break;
    undecided.push(first);
    said = expected.slice(0, first + 1);
  }
  return { said, undecided };
}
