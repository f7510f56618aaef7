/** How `serve` and `studio` start the server: options that both take. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/files/package-root.ts';

import type { ServerOptions } from '../server/index.ts';
import type { CommandContext } from './frame/context.ts';
import { file, folder, integer, number, outFolder, type ParsedValues, repeatable, text } from './frame/values.ts';
import { modelOptions } from './model-options.ts';

export const serverOptions = {
  model: repeatable(text('model folder or built-in name to serve (default: all built-in models)', { placeholder: 'MODEL' })),
  weights: repeatable(file('trained weights of an editor, beside those that come with the models')),
  editor: repeatable(text('module of an editor from outside, beside those of visedit, as ./mine.js', { placeholder: 'MODULE' })),
  dataDir: outFolder('folder where edits are kept', { default: 'visedit-data' }),
  host: text('address to listen on; without a key this machine only', { default: '127.0.0.1', placeholder: 'HOST' }),
  port: integer('port to listen on; 0 for any free one', { default: 8080, min: 0, max: 65_535 }),
  key: text('key that clients must send (default: the variable VISEDIT_KEY)', { placeholder: 'KEY' }),
  data: repeatable(file('records that can be browsed (E-VQA or E-IC JSON); default: the mini world')),
  images: repeatable(folder('folder that the image paths of the --data before it start from')),
  runs: repeatable(
    folder('folder of evaluations and trainings to show (default: ./runs, and the results that come with visedit)'),
  ),
  allowHost: repeatable(text('further name that the server is reached by', { placeholder: 'NAME' })),
  allowOrigin: repeatable(
    text('origin of pages that may use the server, such as http://localhost:5173', { placeholder: 'ORIGIN' }),
  ),
  allowImageHost: repeatable(
    text('host whose pictures may be fetched by their address (default: none)', { placeholder: 'HOST' }),
  ),
  queue: integer('requests that may wait for their turn', { default: 32, min: 0, max: 10_000 }),
  concurrency: integer('requests that are worked on at once, taking turns', { default: 4, min: 1, max: 64 }),
  timeout: number('seconds that one request may take', { default: 300, above: 0, max: 86_400 }),
  drain: number('seconds that running requests have to finish when the server is stopped', { default: 30, min: 0, max: 3600 }),
  maxPixels: integer('pixels that a picture may have', { default: 16_000_000, min: 1, max: 1_000_000_000 }),
  maxBody: integer('bytes that the body of a request may have', { default: 33_554_432, min: 1024, max: 1_073_741_824 }),
  maxTokens: integer('new tokens that an answer may have', { default: 4096, min: 1, max: 1_000_000 }),
  seed: integer('seed of the mini world', { default: 1, min: 0 }),
  threads: integer('threads of one product', { min: 1 }),
  ...modelOptions,
};

const shippedResults = join(packageRoot, 'results');

/** @throws Error when the options do not fit together */
export async function toServerOptions(
  given: ParsedValues<typeof serverOptions>,
  { quiet }: CommandContext,
): Promise<ServerOptions> {
  const [{ builtInModels }, { pino, destination }] = await Promise.all([import('../../src/models/load.ts'), import('pino')]);
  const {
    model,
    editor,
    data,
    images,
    runs,
    allowHost,
    allowOrigin,
    allowImageHost,
    key,
    maxPixels,
    maxBody,
    maxTokens,
    seed,
    ...rest
  } = given;
  if (data.length !== images.length)
    throw new Error(`${data.length} --data and ${images.length} --images are given; give one --images for each --data`);
  const own = process.env.VISEDIT_KEY;
  return {
    ...rest,
    editors: editor,
    models: model.length > 0 ? model : builtInModels,
    key: key ?? (own === '' ? undefined : own),
    datasets: data.map((path, i) => ({ data: path, images: images[i]! })),
    runs: runs.length > 0 ? runs : ['runs', shippedResults].filter((path) => existsSync(path)),
    allowHosts: allowHost,
    allowOrigins: allowOrigin,
    allowImageHosts: allowImageHost,
    worldSeed: seed,
    limits: { pixels: maxPixels, bodyBytes: maxBody, maxTokens },
    // Stdout belongs to the result.
    logger: pino({ level: quiet ? 'warn' : 'info' }, destination({ fd: 2, sync: true })),
  };
}
