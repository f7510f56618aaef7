/** `visedit inspect`: what a model is, without running it. */
import { defineCommand } from '../frame/command.ts';
import { text } from '../frame/values.ts';

export const command = defineCommand({
  details:
    'Reads the configuration, checks that every weight is there and has its size, and hashes the weights. The model is not run.',
  arguments: {
    model: text('model folder or built-in name', { required: true }),
  },
  examples: ['inspect mini-llava'],
  async run({ model }) {
    const [{ loadModel, weightShapes }, { tracedLayers }, { storedWeights }, { veadLayer }] = await Promise.all([
      import('../../../src/models/load.ts'),
      import('../../../src/editors/vead/vead.ts'),
      import('../../../src/models/stored.ts'),
      import('../../../lab/recipes.ts'),
    ]);
    const vlm = loadModel(model);
    const { architecture, decoder } = vlm;
    const suggested = veadLayer(vlm);
    const data = {
      name: vlm.name,
      architecture: architecture.name,
      layers: decoder.layers,
      hidden: decoder.hidden,
      heads: decoder.heads,
      keyHeads: decoder.keyHeads,
      headWidth: decoder.headWidth,
      vocabulary: decoder.vocabulary,
      maxPositions: decoder.maxPositions,
      // Where pictures keep their own size, these depend on the picture.
      visualTokens: architecture.fixed?.count ?? null,
      patchGrid: architecture.fixed?.grid ?? null,
      imageSize: architecture.fixed?.size ?? null,
      ...storedWeights(vlm, weightShapes(architecture)),
      fingerprint: vlm.fingerprint,
      suggestedLayer: suggested,
      tracedLayers: tracedLayers(vlm, suggested),
    };
    const size = data.bytes >= 1e9 ? `${(data.bytes / 1e9).toFixed(2)} GB` : `${(data.bytes / 1e6).toFixed(2)} MB`;
    const lines: [string, string | number][] = [
      ['architecture', data.architecture],
      ['decoder layers', data.layers],
      ['hidden size', data.hidden],
      [
        'heads',
        `${data.heads}${data.keyHeads === data.heads ? '' : `, ${data.keyHeads} of keys and values`}; ${data.headWidth} wide`,
      ],
      ['vocabulary', data.vocabulary],
      ['longest input', `${data.maxPositions} tokens`],
      ['visual tokens', data.visualTokens ?? 'as many as the picture needs'],
      ['patch grid', data.patchGrid?.join(' x ') ?? 'of the picture'],
      ['picture size', data.imageSize?.join(' x ') ?? 'of the picture'],
      ['parameters', data.parameters.toLocaleString('en')],
      ['stored as', Array.isArray(data.dtype) ? data.dtype.join(', ') : data.dtype],
      ['on disk', `${size} in ${data.files} ${data.files === 1 ? 'file' : 'files'}`],
      ['fingerprint', data.fingerprint],
      ['suggested insert layer', data.suggestedLayer],
      ['traced layers', data.tracedLayers.join(', ')],
    ];
    const width = Math.max(...lines.map(([name]) => name.length));
    return { data, text: [data.name, ...lines.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`)].join('\n') };
  },
});
