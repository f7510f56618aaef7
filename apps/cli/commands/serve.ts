/** `visedit serve`: the models over HTTP, until it is stopped. */
import { defineCommand } from '../frame/command.ts';
import { serverOptions, toServerOptions } from '../server-options.ts';
import { serveUntilStopped } from '../serving.ts';

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
    const options = await toServerOptions(given, context);
    return serveUntilStopped(options, context, ({ url, services }) => {
      context.log(`Serving ${services.models.join(', ')} at ${url}; edits are kept in ${options.dataDir}.`);
    });
  },
});
