import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The folder with the conformance fixtures: VISEDIT_SHARED, or `shared` beside the checkout. */
export const sharedDir = process.env.VISEDIT_SHARED ?? join(root, '..', 'shared');
export const fixturesDir = join(sharedDir, 'fixtures');
export const hasFixtures = existsSync(join(fixturesDir, 'README.md'));
if (!hasFixtures) {
  const where = `conformance fixtures not found at ${fixturesDir}: set VISEDIT_SHARED to the folder that holds them`;
  // A check that did not run must not count as one that passed.
  if (process.env.CI) throw new Error(where);
  console.warn(`${where}; tests that need them are skipped`);
}
