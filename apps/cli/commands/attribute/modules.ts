/** `visedit attribute modules`: module output attribution (VisEdit Eq. 2-5) of one question, as numbers and bars. */
import { writeFileSync } from 'node:fs';
import { defineCommand } from '../../frame/command.ts';
import type { CommandContext } from '../../frame/context.ts';
import { openModel, openSubject, subjectOptions } from './subject.ts';
import { csvCell, dataOptions } from './tool-command.ts';
import { layerList, layers, picture } from './values.ts';

export const command = defineCommand({
  details:
    'Each module output at the last position is mapped to the vocabulary by the final norm and the vocabulary matrix. Its contribution to the key token is sign(v) sqrt(|v| p), where p is the probability of the token in that map, and v is its logit divided by the largest logit of all modules. "layer" is the same map of the residual stream after each layer (logit lens).',
  options: {
    ...subjectOptions,
    layers,
    ...dataOptions,
    out: picture,
  },
  examples: [
    'attribute modules --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out bars.svg',
    'attribute modules --model mini-llava --data vqa_test.json --images images --limit 50 --csv modules.csv --out bars.svg',
  ],
  async run({ layers, out, data, images, limit, csv, ...given }, context) {
    if (data !== undefined) return average({ ...given, layers, out, data, images, limit, csv }, context);
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
    const numbers = {
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
      savePicture(out, await moduleBars({ layers: shown, ...numbers.contribution, keyToken: keyText }));
    }
    const rows = shown.map((layer, i) => [
      layer,
      numbers.contribution.attn[i]!.toFixed(4),
      numbers.contribution.mlp[i]!.toFixed(4),
      numbers.prob.layer[i]!.toFixed(4),
    ]);
    const head = ['layer', 'attention', 'MLP', 'probability after the layer'];
    const lines = [
      `Contribution to ${JSON.stringify(keyText)} (token ${tokenId}, ${keyId === undefined ? 'predicted' : 'given'})`,
      context.table({ head, rows, align: ['right', 'right', 'right', 'right'] }),
      ...(out === undefined ? [] : ['', `Picture in ${out}.`]),
    ];
    return { data: numbers, text: lines.join('\n') };
  },
});

type Given = Parameters<typeof openModel>[0] & {
  readonly layers: readonly number[] | 'all';
  readonly out: string | undefined;
  readonly data: string;
  readonly images: string | undefined;
  readonly limit: number | undefined;
  readonly csv: string | undefined;
};

/** The mean over a data set, each record's contributions to its own token. */
async function average({ layers, out, data, images, limit, csv, ...given }: Given, context: CommandContext) {
  if (given.prompt !== undefined || given.image.length > 0)
    throw new Error('--data brings its own questions; leave out --prompt and --image');
  if (images === undefined) throw new Error('--data needs --images DIR, the folder of its pictures');
  const [{ moduleContribution }, { tokenText }, { checkLayer }, { openRecords }, { decodeImage }] = await Promise.all([
    import('../../../../src/attribution/module-contribution.ts'),
    import('../../../../src/attribution/key-token.ts'),
    import('../../../../src/attribution/visual-attribution.ts'),
    import('../../../../src/input/records.ts'),
    import('../../../../src/input/image/decode.ts'),
  ]);
  const { records } = openRecords(data, images, limit === undefined ? {} : { limit });
  const { vlm, look } = await openModel(given, context);
  const shown = layerList(layers, vlm.decoder.layers);
  for (const layer of shown) checkLayer(vlm, layer);
  const bar = context.progress(records.length, 'Attributing', { unit: 'records' });
  const sums = { attn: shown.map(() => 0), mlp: shown.map(() => 0) };
  const lines = ['record,key,module,layer,contribution'];
  for (const [i, { index, request }] of records.entries()) {
    context.signal.throwIfAborted();
    const asked = { prompt: request.prompt, image: await decodeImage(request.image) };
    const { reading, keyId } = await look(asked, given.token, given.key);
    const [found] = await moduleContribution(vlm, reading.batch, [keyId], reading.rewrite);
    for (const module of ['attn', 'mlp'] as const)
      shown.forEach((layer, at) => {
        const value = found!.contribution[module][layer]!;
        sums[module][at]! += value;
        lines.push([index, tokenText(vlm, found!.tokenId), module, layer, value].map(csvCell).join(','));
      });
    bar.update(i + 1);
  }
  bar.finish();
  await vlm.release();
  if (records.length === 0) throw new Error('there are no records');
  const mean = (of: readonly number[]): number[] => of.map((sum) => sum / records.length);
  const contribution = { attn: mean(sums.attn), mlp: mean(sums.mlp) };
  if (csv !== undefined) writeFileSync(csv, `${lines.join('\n')}\n`);
  if (out !== undefined) {
    const { moduleBars, savePicture } = await import('../../../../src/figures/index.ts');
    savePicture(out, await moduleBars({ layers: shown, ...contribution }));
  }
  const head = ['layer', 'attention', 'MLP'];
  const rows = shown.map((layer, i) => [layer, contribution.attn[i]!.toFixed(4), contribution.mlp[i]!.toFixed(4)]);
  return {
    data: {
      ...{ model: vlm.name, records: records.length, layers: shown, contribution },
      ...(csv === undefined ? {} : { csv }),
      ...(out === undefined ? {} : { out }),
    },
    text: [
      `Mean contribution of ${records.length} questions, each to its own token.`,
      context.table({ head, rows, align: ['right', 'right', 'right'] }),
      ...(csv === undefined ? [] : [`Every number in ${csv}.`]),
      ...(out === undefined ? [] : ['', `Picture in ${out}.`]),
    ].join('\n'),
  };
}
