/** Both attributions: module outputs (VisEdit Eq. 2-5) and visual representations (Eq. 6-8, closed form, with the reference's noise). */
import { moduleContribution } from '../../src/attribution/module-contribution.ts';
import { contributionOf } from '../../src/attribution/visual-attribution.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { placesOf } from '../../src/models/sequence.ts';
import { tolerances } from './checks.ts';
import { askedIn, batchOf, type Subject } from './subject.ts';

export async function checkModules(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  for (const [c, one] of fixture.meta.cases.entries()) {
    const { module_contribution } = one;
    if (module_contribution === undefined) continue;
    const batch = await batchOf(subject, await askedIn(subject, one));
    for (const kind of ['key', 'wrong'] as const) {
      const expected = module_contribution[kind];
      if (expected === undefined) continue;
      const [found] = await moduleContribution(vlm, batch, [expected.token_id]);
      if (kind === 'key') {
        // The key token is the predicted one, or one that rounding could make it.
        const [predicted] = await moduleContribution(vlm, batch);
        const apart = predicted!.logit.layer.at(-1)! - found!.logit.layer.at(-1)!;
        const isRounding = predicted!.tokenId !== expected.token_id && apart <= tolerances.logits;
        const said = isRounding ? expected.token_id : predicted!.tokenId;
        checks.equal('modules.key-token', `case ${c}`, [said], [expected.token_id]);
        if (isRounding) checks.note('modules.key-token', `case ${c}: two logits as good as equal`);
      }
      const compared = [
        ['modules.probability', tolerances.contribution, found!.prob, expected.prob],
        ['modules.logit', tolerances.logits, found!.logit, expected.logit],
        ['modules.contribution', tolerances.contribution, found!.contribution, expected.contribution],
      ] as const;
      for (const [check, tolerance, actual, wanted] of compared) {
        for (const part of ['attn', 'mlp', 'layer'] as const) {
          const values = (actual as Partial<Record<typeof part, number[]>>)[part];
          const reference = wanted?.[part];
          if (values !== undefined && reference !== undefined)
            checks.values(check, tolerance, `case ${c}, ${kind} token, ${part}`, values, reference);
        }
      }
    }
  }
}

export async function checkVisual(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  for (const [i, { case: c, layer, positions }] of fixture.meta.visual_attribution.entries()) {
    const of = fixture.meta.cases[c];
    if (of === undefined)
      throw new Error(`visual_attribution ${i} names case ${c}; there are ${fixture.meta.cases.length} cases`);
    const batch = await batchOf(subject, await askedIn(subject, of));
    const sequence = batch.sequences[0]!;
    const { promptEnd, spans } = sequence;
    if (spans.length === 0) throw new Error(`visual_attribution ${i} names case ${c}, which has no picture`);
    const tokens = placesOf(spans[0]!);
    if (positions !== undefined) checks.equal('visual.places', `attribution ${i}`, tokens, positions);
    const site = `layers.${layer}.attn.in`;
    const out = await vlm.run({ from: 0, to: layer + 1, read: [site] }, batch);
    const own = f32(out[site]!.data as Float32Array, [batch.length, vlm.decoder.hidden]);
    const given = fixture.tensor(`attribution.${i}.attention_input`);
    if (given !== undefined)
      checks.values('visual.attention-input', tolerances.hidden, `attribution.${i}.attention_input`, own.data, given.data);
    for (const name of ['contribution', 'contribution_residual'] as const) {
      const expected = fixture.tensor(`attribution.${i}.${name}`);
      if (expected === undefined) continue;
      const noise = fixture.need(`attribution.${i}.noise`);
      const residual = name === 'contribution_residual';
      const { positions: places } = batch.feeds;
      for (const [suffix, input] of [
        ['', given],
        ['-own-input', own],
      ] as const) {
        if (input === undefined) continue;
        const found = await contributionOf(vlm, layer, input, tokens, noise, promptEnd, 'norm', undefined, places, residual);
        const check = `visual.${residual ? 'contribution-residual' : 'contribution'}${suffix}`;
        checks.values(check, tolerances.contribution, `attribution.${i}.${name}`, found.data, expected.data);
      }
    }
  }
}
