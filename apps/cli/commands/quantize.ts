/** `visedit quantize`: a model with its matrices rounded to 4 or 8 bits, written once. */
import { defineCommand } from '../frame/command.ts';
import { choice, outFolder, text } from '../frame/values.ts';
import { stoppable } from '../stoppable.ts';

const blocks = ['32', '64', '128', '256'] as const;

export const command = defineCommand({
  details:
    "Every 32 numbers of a matrix row, or --block of them, share a scale and a zero point. int4 rounds the decoder layers to 4 bits, and the picture's encoder and the head to 8; embeddings, norms and biases are not rounded. The new folder opens like any other model, and edits and editor weights of the model fit it. --out must be new or empty. A command that is stopped leaves nothing there.",
  arguments: { model: text('model folder, built-in name or pulled model', { required: true }) },
  options: {
    out: outFolder('folder to write', { required: true }),
    dtype: choice('type that matrices are rounded to', ['int4', 'int8'], { default: 'int4' }),
    block: choice('numbers that share a scale, where the width of a matrix allows it: more are faster and coarser', blocks, {
      default: '32',
    }),
  },
  examples: [
    'quantize llava-hf/llava-1.5-7b-hf --out models/llava-int4',
    'quantize llava-hf/llava-1.5-7b-hf --out models/llava-int4-fast --block 128',
  ],
  async run({ model, out, dtype, block }, context) {
    const [{ quantize }, { gigabytes }] = await Promise.all([
      import('../../../src/models/quantize.ts'),
      import('../../../src/models/memory.ts'),
    ]);
    let bar: ReturnType<typeof context.progress> | undefined;
    const megabytes = (bytes: number): number => Math.round(bytes / 1e6);
    const result = await stoppable(context, 'Run the same command again.', () =>
      quantize(model, {
        out,
        dtype,
        block: Number(block),
        signal: context.signal,
        onPlan: (bytes, from) =>
          context.log(`Rounding ${model} to ${dtype}: ${gigabytes(bytes)} on disk, from ${gigabytes(from)}.`),
        onProgress: (done, total) => {
          bar ??= context.progress(megabytes(total), 'Rounding', { unit: 'MB' });
          bar.update(megabytes(done));
        },
      }),
    );
    bar?.finish();
    return {
      data: { ...result, dtype },
      text: `${result.tensors} tensors, ${(result.bytes / 1e6).toFixed(1)} MB, written to ${result.out}.`,
    };
  },
});
