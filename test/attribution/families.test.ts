/** Every tool runs on every family: grids that vary, windows, features behind layers, norms behind modules. Heads sum to the module's output. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { headParts } from '../../src/attribution/head-parts.ts';
import { onPictures, seenPart } from '../../src/attribution/on-pictures.ts';
import { tools } from '../../src/attribution/tools/index.ts';
import type { Subject } from '../../src/attribution/tools/tool.ts';
import { visualAttributions } from '../../src/attribution/visual-attribution.ts';
import { readInput } from '../../src/models/answer.ts';
import { barePrompt } from '../../src/models/chat.ts';
import { loadModel } from '../../src/models/load.ts';
import { Random } from '../../src/random.ts';
import { sharedDir } from '../shared.ts';
import { randomPicture } from '../tiny-model.ts';

const folder = join(sharedDir, 'fixtures-modern');
const families = ['gemma3', 'qwen3_vl', 'qwen2_5_vl', 'smolvlm', 'llava_onevision', 'internvl'];

describe.skipIf(!existsSync(folder)).each(families)('%s', (family) => {
  test('maps, heads and every tool', async () => {
    const vlm = loadModel(join(folder, `tiny-${family}`), { threads: 1 });
    const image = randomPicture(1, 60, 40);
    const asked = barePrompt(vlm, 'What is it?', [image]);
    const reading = await readInput(vlm, asked);
    const subject: Subject = { vlm, asked, reading, read: (other) => readInput(vlm, other) };
    const end = reading.batch.sequences[0]!.promptEnd;
    const { heads, hidden: d, layers } = vlm.decoder;
    for (const { layer, parts } of await headParts(
      vlm,
      reading,
      Array.from({ length: layers }, (_, i) => i),
      end,
    )) {
      const site = `layers.${layer}.attn.out`;
      const out = (await vlm.run({ from: 0, to: layer + 1, read: [site] }, reading.batch))[site]!.data as Float32Array;
      for (let j = 0; j < d; j++) {
        let sum = 0;
        for (let head = 0; head < heads; head++) sum += parts.data[head * d + j]!;
        expect(sum).toBeCloseTo(out[end * d + j]!, 4);
      }
    }
    const [map] = await visualAttributions(vlm, reading.batch, [1], { random: new Random(1), budget: 512 });
    const [drawn] = (await onPictures(vlm, reading.batch.sequences[0]!))(map!.values);
    expect(drawn!.values).toHaveLength(drawn!.grid[0] * drawn!.grid[1]);
    const [left, top, width, height] = seenPart(drawn!, image);
    expect(Math.max(left, top)).toBeLessThanOrEqual(1e-6);
    expect(Math.min(left + width, top + height)).toBeGreaterThanOrEqual(1 - 1e-6);
    for (const tool of tools) {
      const options = tool.options.parse(
        { steer: { toward: 'a', away: 'b c' }, check: { steps: 2, methods: 'attention' }, trace: { parts: 'groups', draws: 1 } }[
          tool.id
        ] ?? {},
      );
      const run = tool.compares === undefined ? {} : { against: { image: randomPicture(2, 60, 40) } };
      const found = await tool.run(subject, options, run);
      expect(found.table.rows.length, tool.id).toBeGreaterThan(0);
    }
    await vlm.release();
  });
});
