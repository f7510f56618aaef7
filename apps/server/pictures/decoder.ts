/**
 * Reads pictures one after the other in a process of their own. The server can end that process at any moment, and a picture has limits of time
 * and memory there.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { ownProgram } from '../../../src/files/own-program.ts';
import { Budget } from '../budget.ts';
import { ApiError } from '../errors.ts';
import { type DecodeAnswer, type DecodeAsked, type Decoded, type Hide, tooMuchMemory } from './decode-messages.ts';

/** Seconds that one picture may take. */
const seconds = 20;

export class Decoder {
  /** one at a time */
  readonly #turns = new Budget(1);
  #process: ChildProcess | undefined;

  constructor(readonly maxPixels: number) {}

  /**
   * @param want the size is read from the head of the file
   * @throws ApiError 400 when it is no picture, damaged, has too many pixels, or takes too long or too much memory
   */
  async decode(
    bytes: Uint8Array,
    want: DecodeAsked['want'],
    param: string | undefined,
    signal: AbortSignal,
    hide?: Hide,
  ): Promise<Decoded> {
    const release = await this.#turns.take(1, signal);
    try {
      const decoded = await this.#once({ bytes, maxPixels: this.maxPixels, want, hide }, param, signal);
      if ('error' in decoded) throw new ApiError(400, 'invalid_image', decoded.error, { param });
      return decoded;
    } finally {
      release();
    }
  }

  #once(asked: DecodeAsked, param: string | undefined, signal: AbortSignal): Promise<DecodeAnswer> {
    const child = this.#process ?? this.#start();
    return new Promise((resolve, reject) => {
      const refuse = (message: string): void => reject(new ApiError(400, 'invalid_image', message, { param }));
      // The next picture gets another process.
      const end = (): void => {
        this.#process = undefined;
        child.kill('SIGKILL');
      };
      const late = setTimeout(() => {
        refuse(`the picture takes longer to read than the ${seconds} s that are allowed`);
        end();
      }, seconds * 1000);
      const leave = (): void => {
        reject(signal.reason as Error);
        end();
      };
      signal.addEventListener('abort', leave, { once: true });
      const done = (): void => {
        clearTimeout(late);
        signal.removeEventListener('abort', leave);
        child.off('message', told);
        child.off('exit', ended);
      };
      const told = (decoded: DecodeAnswer): void => {
        done();
        resolve(decoded);
      };
      child.on('message', told);
      const ended = (code: number | null): void => {
        done();
        if (this.#process === child) this.#process = undefined;
        if (code === tooMuchMemory) refuse('the picture takes more memory to read than is allowed; save it anew, as PNG or JPEG');
        else refuse('the picture cannot be read: its decoder failed');
      };
      child.once('exit', ended);
      child.send(asked, (error) => error !== null && reject(error));
    });
  }

  #start(): ChildProcess {
    const { file, argv } = ownProgram('./decode-process', import.meta.url);
    // The process without a picture takes about 150 MB; libraries hold several copies of a picture.
    const maxBytes = 300e6 + 16 * this.maxPixels;
    const child = fork(file, [...argv, String(maxBytes)], {
      execArgv: [...process.execArgv, '--expose-gc'],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    // The server may end while this process waits.
    child.unref();
    child.channel?.unref();
    child.on('error', () => {});
    this.#process = child;
    return child;
  }

  close(): void {
    this.#process?.kill('SIGKILL');
  }
}
