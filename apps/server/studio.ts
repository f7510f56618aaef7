/** Serves the files of the built web app for all paths that are not routes of the API. A path that names no file gets the app's page. */

import { readFile } from 'node:fs/promises';
import { extname, join, normalize, resolve, sep } from 'node:path';
import type { App } from './routes/app-types.ts';

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.ttf': 'font/ttf',
  '.json': 'application/json',
  '.map': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.wasm': 'application/wasm',
};

/** The page loads nothing from other origins. Scripts may set styles, as component libraries and drawings do. */
const policy = [
  "default-src 'self'",
  "img-src 'self' data: blob:",
  "style-src 'self' 'unsafe-inline'",
  "script-src 'self'",
  "connect-src 'self'",
  "font-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export function addStudio(app: App, folder: string): void {
  const root = resolve(folder);
  const read = async (path: string): Promise<Buffer | undefined> => {
    const file = normalize(join(root, path));
    if (file !== root && !file.startsWith(root + sep)) return undefined;
    return readFile(file).catch(() => undefined);
  };
  app.get('*', async (c, next) => {
    const path = pathOf(c.req.path);
    if (path === undefined || /^\/(v1(\/|$)|metrics$|openapi\.json$|docs$|healthz$|readyz$)/.test(path)) return next();
    const found = path === '/' ? undefined : await read(path);
    const named = found === undefined ? '/index.html' : path;
    const content = found ?? (extname(path) === '' || path.endsWith('.html') ? await read('index.html') : undefined);
    if (content === undefined) return next();
    // Files of a build carry a hash of their content in their name; the page that names them does not.
    const lasting = named.startsWith('/assets/');
    return c.body(new Uint8Array(content), 200, {
      'content-type': types[extname(named)] ?? 'application/octet-stream',
      'content-security-policy': policy,
      'cache-control': lasting ? 'public, max-age=31536000, immutable' : 'no-cache',
    });
  });
}

function pathOf(path: string): string | undefined {
  try {
    const plain = decodeURIComponent(path);
    return plain.includes('\0') ? undefined : plain;
  } catch {
    return undefined;
  }
}
