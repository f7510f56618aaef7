/** Error messages: `visedit <command>: what was wrong, where, what to do`. A stack trace is shown only with --debug. */

import { visible } from '../../../src/files/visible.ts';

/** A mistake on the command line itself; the message ends with a pointer to the command's help. */
export class UsageError extends Error {
  override name = 'UsageError';
}

const system: Record<string, (path: string) => string> = {
  ENOENT: (path) => `${path} does not exist; check the path`,
  EACCES: (path) => `no permission for ${path}; check the rights of the file and its folder`,
  EPERM: (path) => `the system does not allow this on ${path}; check the rights of the file and its folder`,
  EROFS: (path) => `${path} is on a read-only disk; choose another place`,
  EISDIR: (path) => `${path} is a folder where a file is needed`,
  ENOTDIR: (path) => `a part of the path ${path} is a file where a folder is needed`,
  ENOSPC: (path) => `the disk is full (writing ${path}); free some space and run the command again`,
  EDQUOT: (path) => `the disk quota is used up (writing ${path}); free some space and run the command again`,
  EMFILE: () => 'too many open files; raise the limit with: ulimit -n 4096',
};

export function describeError(error: unknown, command: string, debug: boolean): string {
  const who = command === '' ? 'visedit' : `visedit ${command}`;
  if (!(error instanceof Error)) return visible(`${who}: ${String(error)}`);
  const lines = [`${who}: ${sentence(error)}`];
  if (error instanceof UsageError) lines.push(`See: ${who} --help`);
  if (debug) lines.push(error.stack ?? '', ...causes(error));
  else if (isDefect(error))
    lines.push('This looks like a defect of visedit. Run the command again with --debug and report what it prints.');
  return visible(lines.filter(Boolean).join('\n'));
}

function sentence(error: Error): string {
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  if (syscall !== undefined && code !== undefined && system[code]) return system[code](path ?? 'a file');
  // A name with a line break must not pass for a line of the program's own.
  return error.message.trim().replace(/\n(?=\S)/g, '\n  ') || error.name;
}

function isDefect(error: Error): boolean {
  return error instanceof TypeError || error instanceof ReferenceError;
}

function causes(error: Error): string[] {
  const lines: string[] = [];
  for (let cause = error.cause; cause instanceof Error && lines.length < 8; cause = cause.cause) {
    lines.push(`caused by ${cause.stack ?? cause.message}`);
  }
  return lines;
}
