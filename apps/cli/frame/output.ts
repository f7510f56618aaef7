/** The result on stdout: one JSON document, or text for a person. */
import { Console } from 'node:console';
import { visible } from '../../../src/files/visible.ts';
import type { CommandResult } from './command.ts';

export async function printResult(result: CommandResult, json: boolean): Promise<void> {
  const text = json ? toJson(result.data) : (result.text ?? toText(result.data));
  await write(process.stdout, text.endsWith('\n') ? text : `${text}\n`);
}

/** Writes and waits until the stream took it, so that nothing is cut off when the process ends. What would steer a terminal is escaped. */
export function write(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => {
    stream.write(visible(text), () => resolve());
  });
}

export function toJson(data: unknown): string {
  return JSON.stringify(data ?? null, (_key, value: unknown) => {
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return Array.from(value as unknown as ArrayLike<number>);
    if (value instanceof Map) return Object.fromEntries(value);
    if (value instanceof Set) return [...value];
    if (typeof value === 'bigint') return Number(value);
    return value;
  });
}

function toText(data: unknown): string {
  if (data === null || typeof data !== 'object' || Array.isArray(data)) return typeof data === 'string' ? data : toJson(data);
  return Object.entries(data)
    .map(([name, value]) => `${name}: ${typeof value === 'object' && value !== null ? toJson(value) : String(value)}`)
    .join('\n');
}

/** A library that prints must not spoil the JSON document, so the console goes to stderr. */
export function sendConsoleToStderr(): void {
  globalThis.console = new Console(process.stderr, process.stderr);
}

/** `visedit ... | head` closes the pipe early: no error for the reader, so end quietly. */
export function endQuietlyOnClosedPipe(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
      // The terminal is gone: what is done is still saved.
      if (error.code === 'EIO') return;
      throw error;
    });
  }
}
