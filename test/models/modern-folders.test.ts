/** Folders of modern families, in every layout that they are published in: fetched from a hub, converted, rounded, and asked. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../../src/files/folder.ts';
import { pull } from '../../src/files/hub.ts';
import { unedited } from '../../src/models/answer.ts';
import { convert } from '../../src/models/convert.ts';
import { loadModel } from '../../src/models/load.ts';
import { quantize } from '../../src/models/quantize.ts';
import { startHub } from '../files/hub-server.ts';
import { hasFixtures, sharedDir } from '../shared.ts';
import { randomPicture } from '../tiny-model.ts';
import { difference } from './difference.ts';

const fixtures = join(sharedDir, 'fixtures-modern');
const found = hasFixtures && existsSync(fixtures) ? readdirSync(fixtures).filter((name) => name.startsWith('tiny-')) : [];
const scratch = mkdtempSync(join(tmpdir(), 'visedit-modern-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const question = { prompt: 'What is on the left?', image: randomPicture('folders', 48, 40) };

/** Logits of a question about a picture, and the first tokens of its answer. */
async function asked(dir: string): Promise<{ logits: Float32Array; ids: readonly number[] }> {
  const vlm = loadModel(dir, { threads: 1 });
  const { data: logits } = await vlm.logits(await vlm.batch([vlm.layout(question)]));
  const [answer] = await unedited(vlm).generate([question], { maxNewTokens: 3, eosIds: [] });
  await vlm.release();
  return { logits, ids: answer!.tokenIds };
}

describe.skipIf(found.length === 0).each(found.length === 0 ? ['no fixtures'] : found)('%s', (name) => {
  const dir = join(fixtures, name);

  test('a hub gives all that is read of it', async () => {
    const files = Object.fromEntries(readdirSync(dir).map((file) => [file, readFileSync(join(dir, file))]));
    const hub = await startHub({ files: { ...files, 'README.md': Buffer.from('#'), 'onnx/model.onnx': Buffer.alloc(9) } });
    const out = join(scratch, `${name}-pulled`);
    try {
      await pull('org/model', { out, endpoint: hub.endpoint, retryDelay: 1 });
    } finally {
      await hub.close();
    }
    expect(readdirSync(out)).not.toContain('README.md');
    expect(openCheckpoint(out).fingerprint()).toBe(openCheckpoint(dir).fingerprint());
    const [own, published] = [out, dir].map((folder) => loadModel(folder, { threads: 1 }));
    expect(own!.layout(question).ids).toEqual(published!.layout(question).ids);
    expect(own!.chat === undefined).toBe(published!.chat === undefined);
  });

  test('converted to one file it answers as before, rounded it answers', async () => {
    const before = await asked(dir);
    const [one, rounded] = ['converted', 'int4'].map((what) => join(scratch, `${name}-${what}`)) as [string, string];
    await convert(dir, { out: one });
    expect(readdirSync(one).filter((file) => file.endsWith('.safetensors'))).toEqual(['model.safetensors']);
    const after = await asked(one);
    expect(difference(after.logits, before.logits)).toBeLessThan(1e-6);
    expect(after.ids).toEqual(before.ids);

    await quantize(one, { out: rounded, dtype: 'int4' });
    expect(readFileSync(join(rounded, 'config.json'), 'utf8')).toContain('quantization_config');
    const answer = await asked(rounded);
    expect(answer.ids).toHaveLength(3);
    expect(answer.logits.every(Number.isFinite)).toBe(true);
    // Other numbers, of the same model: its fingerprint is that of what it was rounded from.
    expect(loadModel(rounded, { threads: 1 }).fingerprint).toBe(loadModel(one, { threads: 1 }).fingerprint);
  });
});
