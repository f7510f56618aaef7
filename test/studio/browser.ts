/** A studio on its real server, and a real Chromium that looks at it. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { builtStudio } from '../../apps/cli/studio-build.ts';
import { type ServerOptions, startServer } from '../../apps/server/index.ts';

const places = [
  process.env.VISEDIT_CHROMIUM ?? '',
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];
const found = places.find((path) => path !== '' && existsSync(path));

/** Without a browser the tests are skipped, but not where everything must be checked. */
export const hasChromium = found !== undefined;
if (!hasChromium) {
  const message = 'no Chromium was found, which the tests of the studio need: install one or name it in VISEDIT_CHROMIUM';
  if (process.env.CI) throw new Error(message);
  console.warn(`${message}; they are skipped`);
}

const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export interface Studio {
  readonly url: string;
  readonly dataDir: string;
  readonly browser: Browser;
  /** A page of its own; `problems` collects what went wrong in it: errors on its console, requests to elsewhere. */
  open(options?: BrowserContextOptions): Promise<{ page: Page; problems: string[] }>;
  close(): Promise<void>;
}

export async function startStudio(options: Partial<ServerOptions> = {}): Promise<Studio> {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-studio-'));
  const studio = await builtStudio(() => {});
  const server = await startServer({
    models: ['mini-llava'],
    dataDir: join(folder, 'data'),
    host: '127.0.0.1',
    port: 0,
    drain: 1,
    studio,
    ...options,
  });
  const browser = await chromium.launch({ executablePath: found!, args: flags });
  return {
    url: server.url,
    dataDir: join(folder, 'data'),
    browser,
    async open(contextOptions = {}) {
      const context = await browser.newContext({
        viewport: { width: 1280, height: 900 },
        acceptDownloads: true,
        ...contextOptions,
      });
      // A machine with much else to do is slow, not wrong.
      context.setDefaultTimeout(90_000);
      const page = await context.newPage();
      const problems: string[] = [];
      page.on('console', (message) => {
        if (message.type() === 'error' || message.type() === 'warning') problems.push(`${message.type()}: ${message.text()}`);
      });
      page.on('pageerror', (error) => problems.push(`page: ${error.message}`));
      page.on('request', (request) => {
        const { protocol, origin } = new URL(request.url());
        if (protocol.startsWith('http') && origin !== server.url) problems.push(`request to elsewhere: ${request.url()}`);
      });
      return { page, problems };
    },
    async close() {
      await browser.close();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
