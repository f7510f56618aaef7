/** `visedit studio`: the page and the API at one address, a key for the API only, and a quiet end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

test('starts, serves the page under a strict policy, asks for the key, and ends on Ctrl-C with 0', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-studio-command-'));
  const words = ['studio', '--model', 'mini-llava', '--port', '0', '--browser', 'never', '--key', 'not-a-secret'];
  const child = spawn(process.execPath, [join(root, 'bin/visedit'), ...words], { cwd: folder });
  try {
    let told = '';
    child.stderr.on('data', (piece: Buffer) => {
      told += piece.toString();
    });
    await expect.poll(() => told, { timeout: 100_000, interval: 200 }).toMatch(/The studio is at http/);
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(told)![0];
    for (const path of ['/', '/why?prompt=x', '/runs/some~run']) {
      const page = await fetch(url + path);
      expect([path, page.status, page.headers.get('content-type')]).toEqual([path, 200, 'text/html; charset=utf-8']);
      expect(page.headers.get('content-security-policy')).toContain("script-src 'self'");
      expect(await page.text()).toContain('<div id="root">');
    }
    expect((await fetch(`${url}/v1/models`)).status).toBe(401);
    expect((await fetch(`${url}/v1/models`, { headers: { authorization: 'Bearer not-a-secret' } })).status).toBe(200);
    child.kill('SIGINT');
    const [code] = (await once(child, 'close')) as [number];
    expect(code).toBe(0);
  } finally {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}, 150_000);
