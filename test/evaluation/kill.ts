/** Starts bin/visedit and sends it a signal as soon as a condition on the disk holds. */
import { spawn } from 'node:child_process';
import { root } from '../cli/start.ts';

export interface Killed {
  /** null when the signal ended it */
  code: number | null;
  /** whether it was still running when the signal was sent */
  hit: boolean;
  stderr: string;
}

export function viseditUntil(words: readonly string[], when: () => boolean, signal: NodeJS.Signals): Promise<Killed> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [`${root}bin/visedit`, ...words], {
      env: { ...process.env, NO_COLOR: '1' },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    let hit = false;
    const watch = setInterval(() => {
      if (hit || !when()) return;
      hit = child.exitCode === null;
      child.kill(signal);
    }, 2);
    child.stderr.on('data', (piece: Buffer) => {
      stderr += piece.toString();
    });
    child.on('error', reject);
    child.on('close', (code) => {
      clearInterval(watch);
      resolve({ code, hit, stderr });
    });
  });
}
