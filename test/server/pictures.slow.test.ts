/** 150 uploads of 16 megapixels at once: the server and its processes stay below a gigabyte, and every answer says what became of it. */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { expect, test } from 'vitest';
import { root } from '../cli/start.ts';
import { temporaryFolder } from '../tiny-world.ts';
import { ask } from './harness.ts';

/** Resident bytes of a process and of those that it started. */
function residentBytes(pid: number): number {
  const all = readdirSync('/proc').flatMap((name) => {
    try {
      const status = /^\d+$/.test(name) ? readFileSync(`/proc/${name}/status`, 'utf8') : '';
      const field = (of: string): number => Number(new RegExp(`^${of}:\\s*(\\d+)`, 'm').exec(status)?.[1] ?? -1);
      return status === '' ? [] : [{ pid: Number(name), parent: field('PPid'), bytes: field('VmRSS') * 1024 }];
    } catch {
      return [];
    }
  });
  return all.filter((one) => one.pid === pid || one.parent === pid).reduce((sum, { bytes }) => sum + Math.max(0, bytes), 0);
}

test.skipIf(process.platform !== 'linux')(
  'memory under 150 uploads',
  async () => {
    const folder = temporaryFolder();
    const words = ['serve', '--model', 'mini-llava', '--port', '0', '--data-dir', join(folder, 'data')];
    const child = spawn(process.execPath, [`${root}bin/visedit`, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
    const url = await new Promise<string>((resolve) => {
      let text = '';
      child.stderr.on('data', (piece) => {
        text += piece;
        const found = /Serving .* at (http:\S+);/.exec(text)?.[1];
        if (found !== undefined) resolve(found);
      });
    });
    // A photograph's share of noise: some megabytes each.
    const noise = { type: 'gaussian' as const, mean: 128, sigma: 30 };
    const picture = await sharp({ create: { width: 4000, height: 4000, channels: 3, background: '#888', noise } })
      .jpeg({ quality: 60 })
      .toBuffer();
    const image = `data:image/jpeg;base64,${picture.toString('base64')}`;
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, residentBytes(child.pid!));
    }, 50);
    const answers = await Promise.all(Array.from({ length: 150 }, () => ask(url, 'POST', '/v1/pictures', { image })));
    clearInterval(watch);
    const count = (status: number): number => answers.filter((answer) => answer.status === status).length;
    console.log(
      JSON.stringify({ megabytes: Math.round(most / 1e6), picture: picture.length, kept: count(201), refused: count(429) }),
    );
    expect(count(201) + count(429)).toBe(150);
    expect(count(201)).toBeGreaterThan(30);
    expect(most).toBeLessThan(1e9);
    child.kill('SIGTERM');
    await new Promise((resolve) => child.on('close', resolve));
    rmSync(folder, { recursive: true });
  },
  300_000,
);
