/** The studio's web app as files: built from its sources when they changed, taken as it is where only the built files are (an installed package). */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, sep } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot as root } from '../../src/files/package-root.ts';

const studio = join(root, 'apps/studio');
const built = join(studio, 'dist');
const stamp = 'sources.sha256';

/** What the built app is made of. */
const sources = [
  'apps/studio/index.html',
  'apps/studio/package.json',
  'apps/studio/vite.config.ts',
  'apps/studio/src',
  'src/figures',
];

function filesBelow(path: string): string[] {
  if (!existsSync(path)) return [];
  return readdirSync(path, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function sourceHash(): string {
  const files = sources.flatMap((path) => (/\.\w+$/.test(path) ? [join(root, path)] : filesBelow(join(root, path)))).sort();
  const hash = createHash('sha256');
  for (const file of files)
    hash.update(relative(root, file).split(sep).join('/')).update('\0').update(readFileSync(file)).update('\0');
  return hash.digest('hex');
}

/**
 * The folder of the built app.
 * @param announce told before a build, which takes some seconds
 * @throws Error when it has to be built and cannot be
 */
export async function builtStudio(announce: (line: string) => void): Promise<string> {
  if (!existsSync(join(studio, 'src'))) {
    if (existsSync(join(built, 'index.html'))) return built;
    throw new Error(`the studio's app is missing at ${built}: install the package again`);
  }
  const hash = sourceHash();
  const known = join(built, stamp);
  const current = () => existsSync(known) && readFileSync(known, 'utf8') === hash;
  if (current()) return built;
  announce('Building the studio (once, and again when its sources change) ...');
  // Beside its place and then moved, so that a build that was stopped is never served.
  const fresh = join(studio, `dist.${process.pid}.tmp`);
  try {
    await promisify(execFile)(process.execPath, [viteCommand(), 'build', studio, '--outDir', fresh, '--logLevel', 'warn'], {
      cwd: root,
    });
    writeFileSync(join(fresh, stamp), hash);
    // Another process may have built the same meanwhile, and serve it.
    if (!current()) {
      rmSync(built, { recursive: true, force: true });
      renameSync(fresh, built);
    }
  } catch (error) {
    if (current()) return built;
    const { stderr = '', message } = error as Error & { stderr?: string };
    throw new Error(`the studio's app could not be built: ${stderr.trim() || message}`);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
  return built;
}

function viteCommand(): string {
  try {
    return join(dirname(createRequire(join(studio, 'package.json')).resolve('vite/package.json')), 'bin', 'vite.js');
  } catch {
    throw new Error('vite, which builds the app, is not installed: run npm install in the folder of visedit');
  }
}
