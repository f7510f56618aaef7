/** Names that the package is imported by, as its source has them. */
import { fileURLToPath } from 'node:url';

const source = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));

export const sourceNames = [
  { find: /^visedit$/, replacement: source('src/index.ts') },
  { find: /^visedit\/lab$/, replacement: source('lab/index.ts') },
  { find: /^visedit\/figures$/, replacement: source('src/figures/drawings.ts') },
];
