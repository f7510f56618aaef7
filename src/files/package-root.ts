/** Where this package lies, whether it runs from its TypeScript source or from what was compiled of it. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readJson } from './json.ts';

const isPackage = (folder: string): boolean => {
  const path = join(folder, 'package.json');
  return existsSync(path) && (readJson(path) as { name?: unknown } | null)?.name === 'visedit';
};

function find(folder: string): string {
  if (isPackage(folder)) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error('the package visedit has no package.json above its code: install it again');
  return find(parent);
}

/** The folder of this package's package.json: models/, assets/ and results/ lie in it. */
export const packageRoot = find(dirname(fileURLToPath(import.meta.url)));

export const packageVersion = (readJson(join(packageRoot, 'package.json')) as { version: string }).version;
