/** `visedit serve`: the models over HTTP, until it is stopped. */
import { defineCommand } from '../frame/command.ts';
import { serverOptions, toServerOptions } from '../server-options.ts';

export const command = defineCommand({
  details:
    "Chat as OpenAI's clients ask it, for each model and for named sets of edits (MODEL@SET); edits that are added, switched, reverted and kept without a restart; attributions and comparisons as numbers and pictures. GET /docs lists the routes. Stopped by Ctrl-C or SIGTERM: new requests are refused, running ones finish.",
  options: serverOptions,
  examples: [
    'serve',
    'serve --model mini-llava --port 9000 --data-dir edits',
    'serve --host 0.0.0.0 --key "$(cat key.txt)" --allow-host models.example.org',
  ],
  async run(given, context) {
    const [{ startServer }, options] = await Promise.all([import('../../server/index.ts'), toServerOptions(given, context)]);
    const server = await startServer(options);
    context.log(`Serving ${server.services.models.join(', ')} at ${server.url}; edits are kept in ${options.dataDir}.`);
    let stopped: () => void = () => {};
    const end = new Promise<void>((resolve) => {
      stopped = resolve;
    });
    context.onInterrupt(async () => {
      await server.stop();
      stopped();
      // It did what it was asked to: a supervisor must not take this for a failure.
      return 0;
    });
    await end;
    return { data: { url: server.url }, text: 'stopped' };
  },
});
