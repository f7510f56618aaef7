/** `visedit attribute visual`: visual representation attribution (VisEdit Eq. 6-8) of one question, as numbers and heat maps. */
import { defineCommand } from '../../frame/command.ts';
import { choice, integer, seed, type Value } from '../../frame/values.ts';
import { announceMemory, modelOptions } from '../../model-options.ts';
import { questionOptions, readQuestion } from '../../question.ts';
import { key, layerList, layers, model, picture } from './values.ts';

const sigma: Value<number | 'paper' | undefined> = {
  help: 'standard deviation of the noise: a number, or the word paper for 3 times that of the visual states (default: paper with --noise-at hidden, 0.7 with norm)',
  placeholder: 'X',
  required: false,
  fallback: undefined,
  repeatable: false,
  parse: (given) => {
    if (given.trim() === 'paper') return 'paper';
    const value = Number(given);
    if (given.trim() === '' || !Number.isFinite(value) || value <= 0)
      throw new Error('is not a number above 0; give one such as 0.7, or paper');
    return value;
  },
};

export const command = defineCommand({
  details:
    'Adds noise to one visual token at a time, and measures by how much the attention output at the last position turns: the contribution is (1 - cos) / 2 of the output with noise and without. The map describes the position that the answer is read from, so it is the same for every answer token: --key only chooses which token is named, with its probability.',
  options: {
    model,
    ...questionOptions,
    key,
    layers,
    draws: integer('number of noise draws that the map averages', { default: 10, min: 1, max: 10_000 }),
    sigma,
    noiseAt: choice(
      'where noise is added: hidden is before the layer norm (the paper), norm is after it (the code of its authors)',
      ['hidden', 'norm'],
      {
        default: 'hidden',
      },
    ),
    seed: seed(),
    scale: choice('colours: each map by its own largest value, or all maps by one largest value', ['each', 'all'], {
      default: 'each',
    }),
    out: picture,
    ...modelOptions,
  },
  examples: [
    'attribute visual --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out maps.svg',
    'attribute visual --model mini-llava --image scene.png --prompt "How many cats are there?" --layers 2,4 --noise-at norm --sigma 0.7 --json',
  ],
  async run({ model, key, layers, draws, sigma, noiseAt, seed, scale, out, dtype, maxMemory, ...question }, context) {
    const [
      { loadModel },
      { imagesOf, textOf },
      { checkLayer, visualAttributions },
      { onPictures },
      tokens,
      { nextToken },
      { visualPlaces },
      { Random },
      { warnOfWords },
    ] = await Promise.all([
      import('../../../../src/models/load.ts'),
      import('../../../../src/input/segments.ts'),
      import('../../../../src/attribution/visual-attribution.ts'),
      import('../../../../src/attribution/on-pictures.ts'),
      import('../../../../src/attribution/key-token.ts'),
      import('../../../../src/attribution/next-token.ts'),
      import('../../../../src/models/sequence.ts'),
      import('../../../../src/random.ts'),
      import('../../unknown-words.ts'),
    ]);
    const vlm = loadModel(model, { dtype, maxMemory });
    announceMemory(vlm, context);
    const shown = layerList(layers, vlm.decoder.layers);
    for (const layer of shown) checkLayer(vlm, layer);
    const { asked, words } = await readQuestion(vlm, question);
    const prompt = textOf(asked.prompt);
    const images = imagesOf(asked);
    if (images.length === 0) throw new Error('there is no picture to look at; give --image FILE');
    const warnings = warnOfWords(vlm.codec, { 'the prompt': words }, context);
    const keyId = key === undefined ? undefined : tokens.keyTokenId(vlm, asked, key);
    const batch = await vlm.batch([vlm.layout(asked)]);
    const next = await nextToken(vlm, batch);
    const answer = keyId ?? next.predicted;
    const bar = context.progress(shown.length, 'Attributing', { unit: 'layers' });
    const found = await visualAttributions(vlm, batch, shown, {
      draws,
      noiseAt,
      ...(sigma === undefined ? {} : { sigma }),
      random: new Random(`${seed}/attribute visual`),
      onLayer: (done) => bar.update(done),
    });
    bar.finish();
    const sequence = batch.sequences[0]!;
    const toPatches = await onPictures(vlm, sequence);
    await vlm.release();
    const seen = found.map(({ values }) => toPatches(values));
    const maps = found.map(({ layer, sigma, values }, i) => ({ layer, sigma, values, patches: seen[i]![0]!.values }));
    const pictures = images.map((image, n) => ({
      image,
      grid: sequence.pictures[n]!.prepared!.grid,
      layers: found.map(({ layer }, i) => ({ layer, patches: seen[i]![n]!.values })),
    }));
    const { grid } = pictures[0]!;
    const keyText = tokens.tokenText(vlm, answer);
    if (out !== undefined) {
      const { heatMaps, savePicture } = await import('../../../../src/figures/index.ts');
      savePicture(
        out,
        await heatMaps({
          normalise: scale,
          rows: pictures.map(({ image, grid, layers }) => ({
            image,
            grid,
            prompt,
            answer: keyText,
            maps: layers.map(({ layer, patches }) => ({ label: `Layer ${layer}`, values: patches })),
          })),
        }),
      );
    }
    const rows = maps.map(({ layer, sigma, patches }) => {
      const best = patches.reduce((at, value, i) => (value > patches[at]! ? i : at), 0);
      const mean = patches.reduce((a, b) => a + b, 0) / patches.length;
      const [row, column] = [Math.floor(best / grid[1]), best % grid[1]];
      return [layer, sigma.toPrecision(3), mean.toExponential(2), patches[best]!.toExponential(2), `${row + 1}, ${column + 1}`];
    });
    const head = ['layer', 'noise', 'mean', 'largest', 'at row, column'];
    return {
      data: {
        model: vlm.name,
        prompt,
        key: { id: answer, text: keyText, predicted: keyId === undefined, probability: next.probability(answer) },
        grid,
        draws,
        noiseAt,
        seed,
        layers: maps,
        ...(pictures.length === 1 ? {} : { pictures: pictures.map(({ grid, layers }) => ({ grid, layers })) }),
        ...(out === undefined ? {} : { out }),
        warnings,
      },
      text: [
        `Contribution of ${visualPlaces(sequence).length} visual tokens, on a grid of ${grid.join(' x ')}; the answer begins with ${JSON.stringify(keyText)} (probability ${next.probability(answer).toFixed(3)})`,
        context.table({ head, rows, align: ['right', 'right', 'right', 'right', 'left'] }),
        ...(out === undefined ? [] : ['', `Picture in ${out}.`]),
      ].join('\n'),
    };
  },
});
