import { defineConfig } from 'vitest/config';
import { sourceNames } from './test/source-names.ts';

export default defineConfig({
  // Examples import the package by its name.
  resolve: { alias: sourceNames },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/**/*.slow.test.ts'],
    testTimeout: 180_000,
    hookTimeout: 180_000,
    pool: 'forks',
    maxWorkers: 2,
  },
});
