/** `visedit trace`: activations by site name, as one safetensors file. */
import { defineCommand } from '../frame/command.ts';
import { file, outFile, text } from '../frame/values.ts';
import { announceMemory, modelOptions } from '../model-options.ts';

export const command = defineCommand({
  details:
    'A site is a named place in the model: layers.{i}.attn.in, layers.{i}.attn.out, layers.{i}.mlp.out, layers.{i}.out, visual, embeddings, logits and others. In a pattern, `*` stands for anything without a dot. The tensors have no batch axis. The metadata of the file holds the input: prompt, tokenIds (-1 at visual tokens), spans (a list of [start, end) for each picture) and model.',
  options: {
    model: text('model folder or built-in name', { required: true, placeholder: 'MODEL' }),
    prompt: text('question', { required: true }),
    image: file('picture that the question is about'),
    sites: text('sites to write, separated by commas', { default: 'layers.*.out', placeholder: 'SITE,..' }),
    out: outFile('file to write', { required: true, endings: ['.safetensors'] }),
    ...modelOptions,
  },
  examples: [
    'trace --model mini-llava --image scene.png --prompt "What is at the top left?" --out trace.safetensors',
    'trace --model mini-llava --prompt "Hello" --sites "layers.*.attn.out,logits" --out trace.safetensors',
  ],
  async run({ model, prompt, image: picture, sites, out, dtype, maxMemory }, context) {
    const [{ loadModel }, { decodeImage }, { trace }, { writeSafetensors }, { modelId }] = await Promise.all([
      import('../../../src/models/load.ts'),
      import('../../../src/input/image/decode.ts'),
      import('../../../src/attribution/trace.ts'),
      import('../../../src/files/safetensors.ts'),
      import('../../../src/editors/editor.ts'),
    ]);
    const patterns = sites
      .split(',')
      .map((one) => one.trim())
      .filter(Boolean);
    const vlm = loadModel(model, { dtype, maxMemory });
    announceMemory(vlm, context);
    const image = picture === undefined ? undefined : await decodeImage(picture);
    const { activations, tokenIds, spans } = await trace(vlm, { prompt, image }, patterns);
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
