/** Packs the package and installs the tarball into an empty project, as its users do: no TypeScript loader is there. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from '../cli/start.ts';

/** Without what `npm run` adds: settings of this repository would reach the other project. */
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm_|ORT_|VITEST|NODE_OPTIONS)/i.test(name)),
);

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function ended(child: ChildProcess): Promise<Ran> {
  const [out, error]: [Buffer[], Buffer[]] = [[], []];
  child.stdout!.on('data', (piece: Buffer) => out.push(piece));
  child.stderr!.on('data', (piece: Buffer) => error.push(piece));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) =>
      resolve({ code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(error).toString() }),
    );
  });
}

export class Project {
  readonly folder = join(mkdtempSync(join(tmpdir(), 'visedit-package-')), 'project');
  readonly package = join(this.folder, 'node_modules', 'visedit');
  /** bytes of the tarball */
  readonly bytes: number;
  readonly tarball: string;

  constructor() {
    const above = join(this.folder, '..');
    // Another user may read it.
    chmodSync(above, 0o755);
    mkdirSync(this.folder);
    const packed = this.#npm(root, 'pack', '--json', '--pack-destination', above);
    const [{ filename, size }] = JSON.parse(packed.slice(packed.indexOf('[\n'))) as [{ filename: string; size: number }];
    this.bytes = size;
    this.tarball = join(above, filename);
    this.write('package.json', JSON.stringify({ type: 'module', private: true }));
    this.#npm(this.folder, 'install', '--ignore-scripts', '--no-audit', '--no-fund', this.tarball);
  }

  #npm(cwd: string, ...words: string[]): string {
    return execFileSync('npm', ['--loglevel=error', ...words], {
      ...{ cwd, env: environment, encoding: 'utf8', maxBuffer: 2 ** 28, shell: process.platform === 'win32' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  }

  write(name: string, text: string): string {
    const path = join(this.folder, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, text);
    return path;
  }

  start(words: readonly string[], options: { cwd?: string; uid?: number; env?: Record<string, string> } = {}): ChildProcess {
    const { cwd = this.folder, env = {}, ...rest } = options;
    return spawn(process.execPath, words, {
      ...rest,
      cwd,
      env: { ...environment, NO_COLOR: '1', VISEDIT_THREADS: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** Plain Node. */
  run(words: readonly string[], options: Parameters<Project['start']>[1] = {}): Promise<Ran> {
    return ended(this.start(words, options));
  }

  /** A line of a shell, as a page shows it; the package is installed from its tarball. */
  async shell(line: string): Promise<Ran> {
    const here = line.replace(/(?<=^npm install .*)\bvisedit\b/, this.tarball);
    const child = spawn('sh', ['-c', here], { cwd: this.folder, env: { ...environment, NO_COLOR: '1', VISEDIT_THREADS: '1' } });
    return ended(child);
  }

  /** The installed command. */
  get command(): string {
    return join(this.folder, 'node_modules', '.bin', 'visedit');
  }

  /** TypeScript as a stranger sets it: strict, and the declarations of all packages are checked, too. */
  compile(file: string, ...settings: string[]): Promise<Ran> {
    const strict = ['--strict', '--skipLibCheck', 'false', '--target', 'es2022', '--noEmit', ...settings];
    return this.run([join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '--ignoreConfig', ...strict, file]);
  }

  remove(): void {
    rmSync(join(this.folder, '..'), { recursive: true, force: true });
  }
}
