/** Starts a program of this repository as a process of its own and collects what it printed. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
  seconds: number;
}

interface Options {
  cwd?: string;
  /** Sends SIGINT, or another signal, as soon as stderr contains this. */
  interruptAt?: string;
  signal?: NodeJS.Signals;
  /** a program that starts this one, as nohup does */
  under?: readonly string[];
  /** Closes the reading end of stdout after the first piece, as `head` does. */
  closeEarly?: boolean;
}

function start(
  nodeArguments: readonly string[],
  { cwd = root, interruptAt, signal = 'SIGINT', under = [], closeEarly = false }: Options,
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const [program, ...words] = [...under, process.execPath, ...nodeArguments];
    const child = spawn(program!, words, {
      cwd,
      env: { ...process.env, NO_COLOR: '1' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    let interrupted = false;
    child.stdout.on('data', (piece: Buffer) => {
      stdout += piece.toString();
      if (closeEarly) child.stdout.destroy();
    });
    child.stderr.on('data', (piece: Buffer) => {
      stderr += piece.toString();
      if (interruptAt !== undefined && !interrupted && stderr.includes(interruptAt)) {
        interrupted = true;
        child.kill(signal);
      }
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr, seconds: (performance.now() - began) / 1000 }));
  });
}

export const visedit = (words: readonly string[], options: Options = {}): Promise<Ended> =>
  start([`${root}bin/visedit`, ...words], options);

export const toyProgram = (words: readonly string[], options: Options = {}): Promise<Ended> =>
  start(['--import', import.meta.resolve('tsx'), `${root}test/cli/toy-program.ts`, ...words], options);
