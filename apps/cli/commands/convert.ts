/** `visedit convert`: writes any model that opens here as one safetensors folder. */
import { defineCommand } from '../frame/command.ts';
import { choice, outFolder, text } from '../frame/values.ts';
import { stoppable } from '../stoppable.ts';

export const command = defineCommand({
  details:
    "Reads every layout that visedit opens: folders with safetensors or pytorch_model*.bin, and MiniGPT-4's set of torch files. No code in torch files is executed. --out must be new or empty. A conversion that is stopped leaves nothing there.",
  arguments: { model: text('model folder to convert', { required: true }) },
  options: {
    out: outFolder('folder to write', { required: true }),
    dtype: choice('type of the weights (default: as they are stored)', ['float32', 'float16']),
  },
  examples: ['convert MiniGPT-4 --out models/minigpt4 --dtype float16'],
  async run({ model, out, dtype }, context) {
    const { convert } = await import('../../../src/models/convert.ts');
    let bar: ReturnType<typeof context.progress> | undefined;
    context.log(`Converting ${model} ...`);
    const megabytes = (bytes: number): number => Math.round(bytes / 1e6);
    const result = await stoppable(context, 'Run the same command again.', () =>
      convert(model, {
        out,
        dtype,
        signal: context.signal,
        onProgress: (done, total) => {
          bar ??= context.progress(megabytes(total), 'Converting', { unit: 'MB' });
          bar.update(megabytes(done));
        },
      }),
    );
    bar?.finish();
    return {
      data: result,
      text: `${result.tensors} tensors, ${(result.bytes / 1e6).toFixed(1)} MB, written to ${result.out}.`,
    };
  },
});
