/** `visedit conformance`: this program's numbers against those of the reference implementations. */
import type { Check } from '../../../lab/conformance/checks.ts';
import { defineCommand } from '../frame/command.ts';
import { folder, repeatable, text } from '../frame/values.ts';

export const command = defineCommand({
  details:
    'DIR holds expected/<model>/meta.json and tensors.safetensors, the models, images/, and vqa_records.json where meta.json has no records itself. Several model folders may share the expected values of one: meta.json lists them as layouts. A model that cannot be opened fails by its name, and the others are checked. The checks compare texts of conversations, tokens, positions, grids, pixel values, layers of the image encoder, hidden states of every layer, logits, greedy answers, both attributions, VEAD edits, their evaluation, and training steps. The table shows the largest difference of each check. Differences that come from rounding alone (two equal logits, a gradient of rounding errors) are left out, and a note says so. The exit code is 0 when all checks pass, otherwise 1.',
  arguments: { dir: folder('folder of fixtures', { required: true }) },
  options: { model: repeatable(text('check only this model', { placeholder: 'NAME' })) },
  examples: [
    'conformance ../shared/fixtures',
    'conformance ../shared/fixtures-modern',
    'conformance ../shared/fixtures --model tiny-llava --json',
  ],
  async run({ dir, model }, context) {
    const { conformance } = await import('../../../lab/conformance/run.ts');
    const progress = context.progress(undefined, 'Checking', { unit: 'parts' });
    const report = await conformance(dir, {
      models: model,
      signal: context.signal,
      onPart: (done, total, note) => progress.update(done, { total, note }),
    });
    progress.finish();
    const tables = report.models.map(
      ({ model: name, checks }) => `${name}\n${context.table({ head, rows: checks.map(row), align })}${remarks(checks)}`,
    );
    const { passed, failed } = report;
    return {
      data: report,
      text: `${tables.join('\n\n')}\n\n${passed} checks passed, ${failed} failed.`,
      exitCode: failed === 0 ? 0 : 1,
    };
  },
});

const head = ['check', 'largest difference', 'tolerance', ''];
const align = ['left', 'right', 'right', 'left'] as const;

const shown = (x: number | null): string => (x === null ? '-' : Number.isInteger(x) ? String(x) : x.toExponential(1));
const row = ({ name, difference, tolerance, pass }: Check) => [name, shown(difference), shown(tolerance), pass ? 'ok' : 'FAILED'];

function remarks(checks: readonly Check[]): string {
  const lines = checks.flatMap(({ name, message, note }) =>
    [message, note && `(${note})`].filter(Boolean).map((text) => `\n  ${name}: ${text}`),
  );
  return lines.join('');
}
