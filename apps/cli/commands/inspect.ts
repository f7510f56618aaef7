/** `visedit inspect`: what a model is, without running it. */
import { totalmem } from 'node:os';
import { defineCommand } from '../frame/command.ts';
import { text } from '../frame/values.ts';

export const command = defineCommand({
  details:
    'Reads the configuration, checks that every weight is there and has its size, and hashes the weights. Estimates the memory that one answer takes by type of weights, on the processor and on a card, and the memory that training each editor takes, record by record, against what this machine has. The model is not run.',
  arguments: {
    model: text('model folder or built-in name', { required: true }),
  },
  examples: ['inspect mini-llava', 'inspect mini-llava --json'],
  async run({ model }, context) {
    const [
      { loadModel, modelFolder, weightShapes },
      { tracedLayers },
      { storedWeights },
      { veadLayer },
      needs,
      { gigabytes },
      { storedTypeOf },
      { usualTokens },
    ] = await Promise.all([
      import('../../../src/models/load.ts'),
      import('../../../src/editors/vead/vead.ts'),
      import('../../../src/models/stored.ts'),
      import('../../../lab/recipes.ts'),
      import('../../../src/editors/needs.ts'),
      import('../../../src/models/memory.ts'),
      import('../../../src/models/quantized.ts'),
      import('../../../src/models/architecture.ts'),
    ]);
    // Looking at a model takes no memory, however large it is.
    const vlm = loadModel(model, { maxMemory: Number.POSITIVE_INFINITY, device: 'cpu' });
    const memory = totalmem();
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
      machineBytes: memory,
      answering: needs.answeringNeeds(vlm, memory, storedTypeOf(modelFolder(model))),
      training: await needs.trainingNeeds(vlm, memory),
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
      ['visual tokens', data.visualTokens ?? `as many as the picture needs, ${usualTokens(architecture)} of a usual one`],
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
    const verdict = (fits: boolean): string => (fits ? 'fits' : 'too large');
    const answering = context.table({
      head: ['weights as', 'processor', 'how it runs', `here, ${gigabytes(memory)}`, 'on a card'],
      rows: data.answering.map(({ type, bytes, residency, fits, card }) => [
        ...[type, gigabytes(bytes), residency, verdict(fits), gigabytes(card)],
      ]),
      align: ['left', 'right', 'left', 'left', 'right'],
    });
    const training = context.table({
      head: ['editor', 'layers', 'memory', `here, ${gigabytes(memory)}`],
      rows: data.training.map(({ editor, trained, layers, bytes, fits }) =>
        trained ? [editor, String(layers), gigabytes(bytes), verdict(fits)] : [editor, '-', '-', 'nothing to train'],
      ),
      align: ['left', 'right', 'right', 'left'],
    });
    const described = lines.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`);
    const headings = [
      'Memory for one answer, about:',
      'Memory to train an editor, one record at a time (--micro-batch 1), about:',
    ];
    return {
      data,
      text: [data.name, ...described, '', headings[0], answering, '', headings[1], training].join('\n'),
    };
  },
});
