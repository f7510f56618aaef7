// Compiles the package into dist/ (JavaScript with type declarations) and builds the studio's app. `npm pack` runs it.
import { execFileSync } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const typescript = createRequire(import.meta.url).resolve('typescript/package.json');
const run = (...words) => execFileSync(process.execPath, words, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });

rmSync(join(root, 'dist'), { recursive: true, force: true });
run(join(dirname(typescript), 'bin/tsc'), '-p', 'tsconfig.build.json');
cpSync(join(root, 'src/figures/fonts'), join(root, 'dist/src/figures/fonts'), { recursive: true });
run(join(root, 'bin/visedit'), 'studio', '--build');
