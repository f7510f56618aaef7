/** Runs programs under strace and tells what they wrote, and whom they looked up or connected to. */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const hasStrace = spawnSync('strace', ['-V']).status === 0;

export interface Traced {
  readonly code: number | null;
  readonly stderr: string;
  /** paths that were opened for writing, made, renamed or removed */
  readonly written: readonly string[];
  /** addresses of the network, as `127.0.0.1:53` */
  readonly asked: readonly string[];
}

const calls = [
  ...['open', 'openat', 'openat2', 'creat', 'mkdir', 'mkdirat', 'mknod', 'mknodat', 'rename', 'renameat', 'renameat2'],
  ...['link', 'linkat', 'symlink', 'symlinkat', 'unlink', 'unlinkat', 'rmdir', 'truncate', 'chmod', 'fchmodat'],
  ...['connect', 'sendto', 'sendmsg', 'sendmmsg'],
];

const quoted = /"((?:[^"\\]|\\.)*)"/g;

/** @param trace lines of strace -f, whose unfinished calls are joined by -z */
export function read(trace: string, cwd: string): Pick<Traced, 'written' | 'asked'> {
  const [written, asked] = [new Set<string>(), new Set<string>()];
  for (const line of trace.split('\n')) {
    const [, call, rest] = /^\d+\s+(\w+)\((.*)$/.exec(line) ?? [];
    if (call === undefined || rest === undefined) continue;
    for (const [, port, v4, v6] of rest.matchAll(
      /sin6?_port=htons\((\d+)\), (?:sin_addr=inet_addr\("([^"]+)"\)|.*?inet_pton\(AF_INET6, "([^"]+)")/g,
    ))
      asked.add(`${v4 ?? v6}:${port}`);
    if (/^(connect|send)/.test(call)) continue;
    const opens = call.startsWith('open');
    if (opens && !/O_WRONLY|O_RDWR|O_CREAT|O_TRUNC/.test(rest)) continue;
    for (const [, path] of rest.matchAll(quoted)) written.add(resolve(cwd, path!));
  }
  return { written: [...written], asked: [...asked] };
}

/** @param served for a server: what to do once it has printed its address; it is ended after that @param seconds ends the program after so long */
export function traced(
  words: readonly string[],
  {
    cwd,
    env,
    served,
    seconds,
  }: { cwd: string; env: NodeJS.ProcessEnv; served?: ((url: string) => Promise<void>) | undefined; seconds?: number | undefined },
): Promise<Traced> {
  const log = join(cwd, '..', `strace-${process.pid}-${Math.random().toString(36).slice(2)}.txt`);
  const strace = ['-f', '-qq', '--seccomp-bpf', '--signal=none', '-s', '4096', '-o', log, '-e', `trace=${calls.join()}`];
  const child = spawn('strace', [...strace, ...words], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  let asked = false;
  const end = (): void => {
    // The program itself: strace would only let it go.
    const below = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8');
    process.kill(Number(below.trim().split(' ')[0]), 'SIGTERM');
  };
  const seen = (piece: Buffer): void => {
    printed += piece.toString();
    const [url] = /http:\/\/127\.0\.0\.1:\d+/.exec(printed) ?? [];
    if (asked || served === undefined || url === undefined) return;
    asked = true;
    served(url).finally(end);
  };
  const timer = seconds === undefined ? undefined : setTimeout(end, 1000 * seconds);
  child.stdout.on('data', seen);
  child.stderr.on('data', seen);
  return new Promise((done, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      const found = read(readFileSync(log, 'utf8'), cwd);
      rmSync(log);
      done({ code, stderr: printed, ...found });
    });
  });
}
