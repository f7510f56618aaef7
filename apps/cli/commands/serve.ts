/** `visedit serve`: the models over HTTP, until it is stopped. */
import { defineCommand } from '../frame/command.ts';
import { serverOptions, toServerOptions } from '../server-options.ts';
import { serveUntilStopped } from '../serving.ts';

export const command = defineCommand({
  details:
    "Serves chat completions as OpenAI's API does, for each model and for each set of edits (MODEL@SET). Edits can be added, switched on and off, and reverted without a restart; attributions and comparisons come as numbers and as pictures. GET /docs lists the routes. After Ctrl-C or SIGTERM the server refuses new requests and finishes the running ones.",
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
