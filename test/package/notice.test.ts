/** NOTICE names every licence of what is installed with the package. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { root } from '../cli/start.ts';

interface Locked {
  readonly license?: string;
  readonly dev?: boolean;
  readonly link?: boolean;
}

test('NOTICE names every licence in the lock file that reaches users', () => {
  const notice = readFileSync(join(root, 'NOTICE'), 'utf8');
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as { packages: Record<string, Locked> };
  const licences = Object.entries(packages)
    .filter(([path, { dev, link }]) => path.startsWith('node_modules/') && !dev && !link)
    .flatMap(([path, { license }]) => (license ?? `none, ${path}`).replace(/[()]/g, '').split(/ AND | OR /));
  expect([...new Set(licences)].filter((one) => !notice.includes(one))).toEqual([]);
});
