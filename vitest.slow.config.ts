import { defineConfig } from 'vitest/config';
import { sourceNames } from './test/source-names.ts';

/** Tests that take minutes (trainings, whole evaluations): `npm run test:slow`. */
export default defineConfig({
  // Examples import the package by its name.
  resolve: { alias: sourceNames },
  test: {
    include: ['test/**/*.slow.test.ts'],
    testTimeout: 1_800_000,
    hookTimeout: 600_000,
    pool: 'forks',
    // One at a time: each of them uses all cores.
    maxWorkers: 1,
    passWithNoTests: true,
  },
});
