/** `visedit trace`: activations by site name, as one safetensors file. */
import { defineCommand } from '../frame/command.ts';
import { outFile, text } from '../frame/values.ts';
import { announceMemory, modelOptions } from '../model-options.ts';
import { questionOptions, readQuestion } from '../question.ts';

export const command = defineCommand({
  details:
    'A site is a named place in the model: layers.{i}.attn.in, layers.{i}.attn.query, layers.{i}.attn.probabilities, layers.{i}.attn.out, layers.{i}.mlp.out, layers.{i}.out, visual, embeddings, logits and others. In a pattern, `*` stands for anything without a dot. The tensors have no batch axis. The metadata of the file holds the input: prompt, tokenIds (-1 at visual tokens), spans (a list of [start, end) for each picture) and model.',
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    ...questionOptions,
    sites: text('sites to write, separated by commas', { default: 'layers.*.out', placeholder: 'SITE,..' }),
    out: outFile('file to write', { required: true, endings: ['.safetensors'] }),
    ...modelOptions,
  },
  examples: [
    'trace --model mini-llava --image scene.png --prompt "What is at the top left?" --out trace.safetensors',
    'trace --model mini-llava --prompt "Hello" --sites "layers.*.attn.out,logits" --out trace.safetensors',
  ],
  async run({ model, sites, out, dtype, maxMemory, maxPixels, minPixels, ...question }, context) {
    const [{ loadModel }, { textOf }, { trace }, { writeSafetensors }, { modelId }] = await Promise.all([
      import('../../../src/models/load.ts'),
      import('../../../src/input/segments.ts'),
      import('../../../src/attribution/trace.ts'),
      import('../../../src/files/safetensors.ts'),
      import('../../../src/editors/editor.ts'),
    ]);
    const patterns = sites
      .split(',')
      .map((one) => one.trim())
      .filter(Boolean);
    const vlm = loadModel(model, { dtype, maxMemory, maxPixels, minPixels });
    announceMemory(vlm, context);
    const { asked } = await readQuestion(vlm, question, context);
    const prompt = textOf(asked.prompt);
    const { activations, tokenIds, spans } = await trace(vlm, asked, patterns);
    const id = modelId(vlm);
    writeSafetensors(out, activations, {
      format: 'visedit trace',
      version: '1',
      model: JSON.stringify(id),
      prompt,
      tokenIds: JSON.stringify(tokenIds),
      ...(spans.length === 0 ? {} : { spans: JSON.stringify(spans) }),
    });
    await vlm.release();
    const shapes = [...activations].map(([name, t]): [string, readonly number[]] => [name, t.shape]);
    return {
      data: { out, model: id, prompt, tokenIds, spans, sites: Object.fromEntries(shapes) },
      text: `${context.table({ head: ['site', 'shape'], rows: shapes.map(([name, shape]) => [name, shape.join(' x ')]) })}\n\nWritten to ${out}.`,
    };
  },
});
