/** `visedit attribute modules`: module output attribution (VisEdit Eq. 2-5) of one question, as numbers and bars. */
import { defineCommand } from '../../frame/command.ts';
import { openSubject, subjectOptions } from './subject.ts';
import { layerList, layers, picture } from './values.ts';

export const command = defineCommand({
  details:
    'Each module output at the last position is mapped to the vocabulary by the final norm and the vocabulary matrix. Its contribution to the key token is sign(v) sqrt(|v| p), where p is the probability of the token in that map, and v is its logit divided by the largest logit of all modules. "layer" is the same map of the residual stream after each layer (logit lens).',
  options: {
    ...subjectOptions,
    layers,
    out: picture,
  },
  examples: [
    'attribute modules --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out bars.svg',
  ],
  async run({ layers, out, ...given }, context) {
    const [{ moduleContribution }, { tokenText }, { checkLayer }] = await Promise.all([
      import('../../../../src/attribution/module-contribution.ts'),
      import('../../../../src/attribution/key-token.ts'),
      import('../../../../src/attribution/visual-attribution.ts'),
    ]);
    const { vlm, prompt, reading, keyId, warnings } = await openSubject(given, context);
    const shown = layerList(layers, vlm.decoder.layers);
    for (const layer of shown) checkLayer(vlm, layer);
    const [found] = await moduleContribution(vlm, reading.batch, [keyId], reading.rewrite);
    const { tokenId, contribution, prob, logit } = found!;
    await vlm.release();
    const keyText = tokenText(vlm, tokenId);
    const of = (values: readonly number[]): number[] => shown.map((layer) => values[layer]!);
    const data = {
      model: vlm.name,
      prompt,
      key: { id: tokenId, text: keyText, predicted: keyId === undefined },
      layers: shown,
      contribution: { attn: of(contribution.attn), mlp: of(contribution.mlp) },
      prob: { attn: of(prob.attn), mlp: of(prob.mlp), layer: of(prob.layer) },
      logit: { attn: of(logit.attn), mlp: of(logit.mlp), layer: of(logit.layer) },
      ...(out === undefined ? {} : { out }),
      warnings,
    };
    if (out !== undefined) {
      const { moduleBars, savePicture } = await import('../../../../src/figures/index.ts');
      savePicture(out, await moduleBars({ layers: shown, ...data.contribution, keyToken: keyText }));
    }
    const rows = shown.map((layer, i) => [
      layer,
      data.contribution.attn[i]!.toFixed(4),
      data.contribution.mlp[i]!.toFixed(4),
      data.prob.layer[i]!.toFixed(4),
    ]);
    const head = ['layer', 'attention', 'MLP', 'probability after the layer'];
    const lines = [
      `Contribution to ${JSON.stringify(keyText)} (token ${tokenId}, ${keyId === undefined ? 'predicted' : 'given'})`,
      context.table({ head, rows, align: ['right', 'right', 'right', 'right'] }),
      ...(out === undefined ? [] : ['', `Picture in ${out}.`]),
    ];
    return { data, text: lines.join('\n') };
  },
});
