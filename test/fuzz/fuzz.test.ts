/** Every reader of what strangers send: seeds, all that fuzzing ever found (findings/), and some damaged inputs. Longer: npm run fuzz -- --minutes 60. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { faultOf } from '../../scripts/fuzz/judge.ts';
import { Mutations } from '../../scripts/fuzz/mutate.ts';
import { cleanUp, type Target, type TargetName, targets } from '../../scripts/fuzz/targets.ts';
import { Random } from '../../src/random.ts';
import { root } from '../cli/start.ts';

// A library prints what it does not know.
beforeAll(() => void vi.spyOn(console, 'warn').mockImplementation(() => {}));
afterAll(() => void vi.restoreAllMocks());

afterAll(cleanUp);

const { HOME } = process.env;
afterAll(() => {
  process.env.HOME = HOME;
});

/** Inputs that were found. */
function findings(name: string): Uint8Array[] {
  const folder = join(root, 'test/fuzz/findings', name);
  if (!existsSync(folder)) return [];
  return readdirSync(folder).map((file) => readFileSync(join(folder, file)));
}

test.each(Object.keys(targets) as TargetName[])('%s', async (name) => {
  const target: Target = await targets[name]();
  const mutations = new Mutations(target.seeds, [], new Random(`fuzz ${name}`));
  const count = name === 'requests' ? 100 : 400;
  const inputs = [...target.seeds, ...findings(name), ...Array.from({ length: count }, () => mutations.next())];
  for (const input of inputs) {
    const fault = await faultOf({ ...target, milliseconds: 20_000 }, input);
    // Vitest holds more than a reader may.
    if (fault?.startsWith('the process grew')) continue;
    expect(fault, Buffer.from(input).toString('base64')).toBeUndefined();
  }
  await target.close?.();
});
