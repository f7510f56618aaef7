/** `visedit pull`: a model from a hub. */
import { defineCommand } from '../frame/command.ts';
import { outFolder, text } from '../frame/values.ts';
import { stoppable } from '../stoppable.ts';

export const command = defineCommand({
  details:
    'Reads config.json first, and refuses a model that visedit cannot open. Then fetches only the files that visedit reads: configuration, tokenizer, image processor and weights (safetensors where there are any), and compares their SHA-256 with those of the hub. After Ctrl-C, a crash or a broken connection the same command continues. Afterwards ORG/NAME is accepted wherever a MODEL is asked for. Set HF_TOKEN for gated models; HF_ENDPOINT names another hub.',
  arguments: { model: text('name of the model on the hub: ORG/NAME', { required: true }) },
  options: {
    out: outFolder('folder to write (default: ~/.cache/visedit/ORG/NAME)'),
    endpoint: text('address of the hub (default: https://huggingface.co)', { placeholder: 'URL' }),
    revision: text('branch, tag or commit', { default: 'main', placeholder: 'REV' }),
  },
  examples: ['pull llava-hf/llava-1.5-7b-hf', 'pull Salesforce/blip2-opt-2.7b --out models/blip2'],
  async run({ model, out, endpoint, revision }, context) {
    const [{ pull }, { readJson }, { describeConfig }] = await Promise.all([
      import('../../../src/files/hub.ts'),
      import('../../../src/files/json.ts'),
      import('../../../src/models/layouts.ts'),
    ]);
    context.log(`Asking for ${model} ...`);
    let bar: ReturnType<typeof context.progress> | undefined;
    const megabytes = (bytes: number): number => Math.round(bytes / 1e6);
    const result = await stoppable(context, 'Run the same command to go on.', () =>
      pull(model, {
        out,
        endpoint,
        revision,
        signal: context.signal,
        checkConfig: (path) => describeConfig(`${model}: config.json`, readJson(path)),
        onProgress: (done, total, name) => {
          bar ??= context.progress(total === undefined ? undefined : megabytes(total), 'Fetching', {
            unit: 'MB',
            start: megabytes(done),
          });
          bar.update(megabytes(done), { note: name });
        },
      }),
    );
    bar?.finish();
    const named = out === undefined ? model : result.out;
    return {
      data: result,
      text: `${result.files.length} files, ${(result.bytes / 1e6).toFixed(1)} MB, in ${result.out}.\nNext: visedit inspect ${named}`,
    };
  },
});
