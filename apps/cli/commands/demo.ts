/** `visedit demo`: the tour on mini-llava: an answer, why, an edit, what it changed and what it left alone. */
import { join } from 'node:path';
import { defineCommand } from '../frame/command.ts';
import { outFolder, seed } from '../frame/values.ts';

export const command = defineCommand({
  details:
    'Runs on mini-llava and downloads nothing. Writes pictures, the edit file and the numbers to the folder --out. The same seed gives the same tour.',
  options: { out: outFolder('folder for the pictures', { default: 'visedit-demo' }), seed: seed() },
  examples: ['demo', 'demo --seed 4 --out /tmp/tour'],
  async run({ out, seed }, context) {
    const { tour } = await import('../tour.ts');
    const result = await tour({ out, seed, context });
    const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;
    const queries = context.table({
      head: ['query', 'asked', 'wanted', 'before', 'after', ''],
      rows: result.queries.map((q) => [
        q.kind,
        q.image === null ? `(no picture) ${q.prompt}` : q.prompt,
        q.wanted,
        q.before,
        q.after,
        q.passed ? 'ok' : 'no',
      ]),
    });
    const metrics = context.table({
      head: ['metric', `over ${result.metrics.count} test edits`],
      rows: Object.entries(result.metrics)
        .filter(([name]) => name !== 'count')
        .map(([name, value]) => [name, percent(value)]),
    });
    return {
      data: result,
      text: [
        `1. Asked "${result.edit.prompt}", mini-llava says "${result.edit.before}"; the picture shows: ${result.edit.target}.`,
        `2. Why: ${join(out, 'module-contributions.svg')} (which layers speak for "${result.edit.before}") and ${join(out, 'visual-attribution.svg')} (where each layer looks).`,
        `3. Corrected in ${result.edit.milliseconds} ms, saved as ${join(out, 'edit.safetensors')}:`,
        queries,
        `   as a picture: ${join(out, 'before-after.svg')}`,
        '4. How well this works, teacher-forced token accuracy as in the paper:',
        metrics,
        `Everything is in ${out}/. Next: visedit attribute visual --model mini-llava --image ${join(out, 'picture.png')} --prompt "${result.edit.prompt}"`,
      ].join('\n\n'),
    };
  },
});
