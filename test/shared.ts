import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The folder with the conformance fixtures: VISEDIT_SHARED, or `shared` beside the checkout. */
export const sharedDir = process.env.VISEDIT_SHARED ?? join(root, '..', 'shared');
export const fixturesDir = join(sharedDir, 'fixtures');
export const hasFixtures = existsSync(join(fixturesDir, 'README.md'));
if (!hasFixtures)
  console.warn(`conformance fixtures not found at ${fixturesDir}: tests that need them are skipped (set VISEDIT_SHARED)`);
