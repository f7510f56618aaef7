import { defineConfig } from 'vitest/config';

/** Tests that take minutes (trainings, whole evaluations): `npm run test:slow`. */
export default defineConfig({
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
