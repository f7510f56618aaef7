/** `visedit studio`: the web app and the server it runs on, at one address. */
import { spawn } from 'node:child_process';
import { defineCommand } from '../frame/command.ts';
import { choice, flag } from '../frame/values.ts';
import { serverOptions, toServerOptions } from '../server-options.ts';
import { serveUntilStopped } from '../serving.ts';
import { builtStudio } from '../studio-build.ts';

export const command = defineCommand({
  details:
    'The web app asks questions about pictures, shows why an answer was given, corrects it, compares answers, and browses data sets and runs. It runs on the server of `visedit serve`, at the address /, so everything that it does can be asked of the HTTP API too. The page loads nothing from other hosts. It is built at the first start and when its sources have changed.',
  options: {
    browser: choice('open the page in a browser: when started from a terminal (auto), or never', ['auto', 'never'], {
      default: 'auto',
    }),
    build: flag('build the page and exit'),
    ...serverOptions,
  },
  examples: ['studio', 'studio --model mini-llava --port 9000 --runs runs', 'studio --model ./llava-1.5-7b --browser never'],
  async run({ browser, build, ...given }, context) {
    const studio = await builtStudio(context.log);
    if (build) return { data: { built: studio }, text: `The page is in ${studio}.` };
    const options = await toServerOptions(given, context);
    return serveUntilStopped({ ...options, studio }, context, ({ url }) => {
      context.log(`The studio is at ${url}; Ctrl-C ends it. Corrections are kept in ${options.dataDir}.`);
      if (browser === 'auto' && process.stderr.isTTY) openInBrowser(url);
    });
  },
});

/** As far as the machine has a way to: the address is printed anyway. */
function openInBrowser(url: string): void {
  const [program, ...words] =
    process.platform === 'darwin'
      ? ['open', url]
      : process.platform === 'win32'
        ? ['cmd', '/c', 'start', '', url]
        : ['xdg-open', url];
  const child = spawn(program!, words, { detached: true, stdio: 'ignore' });
  child.on('error', () => {});
  child.unref();
}
