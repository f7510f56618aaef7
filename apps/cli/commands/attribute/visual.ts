/** `visedit attribute visual`: visual representation attribution (VisEdit Eq. 6-8) of one question, as numbers and heat maps. */
import { defineCommand } from '../../frame/command.ts';
import { choice, integer, number, seed, type Value } from '../../frame/values.ts';
import { openSubject, subjectOptions } from './subject.ts';
import { layerList, layers, picture } from './values.ts';

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
    'Adds noise to one visual token at a time, and measures by how much the attention output at the last position turns: the contribution is (1 - cos) / 2 of the output with noise and without. More noise is drawn until the map is sure: its largest standard error is below --error times its largest value. A map that is not sure after --budget draws is marked. A layer whose output the picture does not move (noise on all patches turns it by less than two degrees) is marked "no weight". --protocol paper averages a fixed number of draws instead, without a check. The map describes the position that the answer is read from: --key only chooses which token is named, with its probability.',
  options: {
    ...subjectOptions,
    layers,
    protocol: choice(
      'converged: draw until the map is sure; paper: a fixed number of draws before the norm',
      ['converged', 'paper'],
      {
        default: 'converged',
      },
    ),
    error: number('largest standard error of a converged map, as a share of its largest value', {
      default: 0.05,
      above: 0,
      max: 1,
    }),
    budget: integer('largest number of draws of a converged map', { default: 16_384, min: 2, max: 1_000_000 }),
    draws: integer('with --protocol paper: number of draws (default: 10)', { min: 1, max: 10_000 }),
    sigma,
    noiseAt: choice(
      'where noise is added: norm is after the layer norm (default), hidden is before it (default of --protocol paper)',
      ['norm', 'hidden'],
    ),
    patchesBy: choice(
      'where visual tokens are no patches (BLIP-2, MiniGPT-4): hiding blurs each patch and compares the output; tokens puts noise on tokens and spreads it over the patches that they look at (default: hiding, with --protocol paper tokens)',
      ['hiding', 'tokens'],
    ),
    seed: seed(),
    scale: choice('colours: each map by its own largest value, or all maps by one largest value', ['each', 'all'], {
      default: 'each',
    }),
    out: picture,
  },
  examples: [
    'attribute visual --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out maps.svg',
    'attribute visual --model mini-llava --image scene.png --prompt "How many cats are there?" --layers 2,4 --protocol paper --json',
  ],
  async run({ layers, protocol, error, budget, draws, sigma, noiseAt, patchesBy, seed, scale, out, ...given }, context) {
    if (draws !== undefined && protocol === 'converged')
      throw new Error('--draws is of --protocol paper; a converged map takes as many as it needs, up to --budget');
    const [
      { checkLayer },
      { patchMaps },
      { seenPart },
      tokens,
      { nextToken },
      { visualPlaces },
      { layerSight, sightNote },
      { Random },
    ] = await Promise.all([
      import('../../../../src/attribution/visual-attribution.ts'),
      import('../../../../src/attribution/patch-attribution.ts'),
      import('../../../../src/attribution/on-pictures.ts'),
      import('../../../../src/attribution/key-token.ts'),
      import('../../../../src/attribution/next-token.ts'),
      import('../../../../src/models/sequence.ts'),
      import('../../../../src/models/sight.ts'),
      import('../../../../src/random.ts'),
    ]);
    const subject = await openSubject(given, context);
    const { vlm, prompt, images, reading, keyId, warnings } = subject;
    const { batch, rewrite } = reading;
    const shown = layerList(layers, vlm.decoder.layers);
    for (const layer of shown) checkLayer(vlm, layer);
    if (images.length === 0) throw new Error('there is no picture to look at; give --image FILE');
    const next = await nextToken(vlm, batch, rewrite);
    const answer = keyId ?? next.predicted;
    const bar = context.progress(shown.length, 'Attributing', { unit: 'layers' });
    const {
      by,
      layers: found,
      together,
    } = await patchMaps(vlm, subject, shown, {
      ...{ protocol, error, budget, signal: context.signal },
      ...(draws === undefined ? {} : { draws }),
      ...(noiseAt === undefined ? {} : { noiseAt }),
      ...(sigma === undefined ? {} : { sigma }),
      by: patchesBy,
      random: new Random(`${seed}/attribute visual`),
      onLayer: (done) => bar.update(done),
    });
    bar.finish();
    const sequence = batch.sequences[0]!;
    await vlm.release();
    const patches = found.map((map) => map.patches);
    const maps = found.map((map, i) => {
      const sees = layerSight(vlm.decoder, map.layer);
      const [own, patchErrors] = [patches[i]![0]!.values, map.patchErrors[0]!.values];
      return { ...map, patches: own, patchErrors, ...(sees === undefined ? {} : { sees }) };
    });
    const note = sightNote(vlm.decoder, shown);
    const pictures = images.map((image, n) => ({
      image,
      grid: patches[0]![n]!.grid,
      seen: seenPart(patches[0]![n]!, image),
      layers: found.map(({ layer }, i) => ({ layer, patches: patches[i]![n]!.values })),
    }));
    const { grid, seen } = pictures[0]!;
    const keyText = tokens.tokenText(vlm, answer);
    if (out !== undefined) {
      const { heatMaps, savePicture } = await import('../../../../src/figures/index.ts');
      savePicture(
        out,
        await heatMaps({
          normalise: scale,
          scaleTitle: 'Turn of the attention output, (1 − cos) / 2',
          rows: pictures.map(({ image, grid, seen, layers }, n) => ({
            ...{ image, grid, seen, prompt, answer: keyText },
            maps: [
              ...layers.map(({ layer, patches }, i) => ({ label: `Layer ${layer}`, ...drawnMap(found[i]!, patches, scale) })),
              // Of another unit: it has no place on a scale of all maps.
              ...(scale === 'each' && layers.length > 1
                ? [{ label: 'Together', values: together[n]!.values, note: 'share of the weight' }]
                : []),
            ],
          })),
        }),
      );
    }
    const rows = maps.map(({ layer, sigma, draws, error, patches, ...map }) => {
      const best = patches.reduce((at, value, i) => (value > patches[at]! ? i : at), 0);
      const [row, column] = [Math.floor(best / grid[1]), best % grid[1]];
      const place = map.carriesWeight
        ? [patches[best]!.toExponential(2), `${row + 1}, ${column + 1}`, `${(100 * error).toFixed(1)} %`]
        : ['no weight', '', ''];
      return [layer, sigma.toPrecision(3), draws, ...place, map.converged || !map.carriesWeight ? '' : 'not sure'];
    });
    const how = by === 'hiding' ? ['The visual tokens are no patches: each patch was hidden, and the output compared.'] : [];
    const head = ['layer', 'noise', 'draws', 'largest', 'at row, column', 'error', ''];
    const unsure = found.filter(({ converged, carriesWeight }) => carriesWeight && !converged).map(({ layer }) => layer);
    const advice = protocol === 'paper' ? '--protocol converged draws until a map is sure' : 'give a larger --budget';
    return {
      data: {
        model: vlm.name,
        prompt,
        key: { id: answer, text: keyText, predicted: keyId === undefined, probability: next.probability(answer) },
        ...{
          protocol,
          grid,
          seen,
          together: together[0]!.values,
          patchesBy: by,
          noiseAt: noiseAt ?? (protocol === 'paper' ? 'hidden' : 'norm'),
          seed,
          layers: maps,
        },
        ...(pictures.length === 1 ? {} : { pictures: pictures.map(({ grid, seen, layers }) => ({ grid, seen, layers })) }),
        ...(out === undefined ? {} : { out }),
        warnings,
      },
      text: [
        `Contribution of ${visualPlaces(sequence).length} visual tokens, on a grid of ${grid.join(' x ')}; the answer begins with ${JSON.stringify(keyText)} (probability ${next.probability(answer).toFixed(3)})`,
        ...how,
        context.table({ head, rows, align: ['right', 'right', 'right', 'right', 'left', 'right', 'left'] }),
        ...(unsure.length === 0
          ? []
          : ['', `Not sure: layer ${unsure.join(', ')}. Another seed may give another map; ${advice}.`]),
        ...(note === undefined ? [] : ['', note]),
        ...(out === undefined ? [] : ['', `Picture in ${out}.`]),
      ].join('\n'),
    };
  },
});

/** A map without weight is drawn as nothing, not stretched to the colours; one that is not sure says so. */
function drawnMap(
  map: { carriesWeight: boolean; converged: boolean; error: number },
  patches: readonly number[],
  scale: 'each' | 'all',
): { values: readonly number[]; note?: string } {
  if (!map.carriesWeight) return { values: patches.map(() => 0), note: 'no weight' };
  if (map.converged) return { values: patches };
  const largest = scale === 'each' ? `0 – ${Math.max(...patches).toPrecision(2)}, ` : '';
  return { values: patches, note: `${largest}± ${Math.round(100 * map.error)} %` };
}
