/** How `serve` and `studio` start the server: options that both take. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/files/package-root.ts';

import type { ServerOptions } from '../server/index.ts';
import type { CommandContext } from './frame/context.ts';
import { choice, file, folder, integer, number, outFolder, type ParsedValues, repeatable, text } from './frame/values.ts';
import { modelOptions } from './model-options.ts';

export const serverOptions = {
  model: repeatable(text('model folder or built-in name to serve (default: all built-in models)', { placeholder: 'MODEL' })),
  weights: repeatable(file('trained weights of an editor; those that come with the models are there already')),
  editor: repeatable(text('module of an editor from outside, beside those of visedit, as ./mine.js', { placeholder: 'MODULE' })),
  dataDir: outFolder('folder where edits are kept', { default: 'visedit-data' }),
  host: text('address to listen on; an address that other machines reach needs a key', {
    default: '127.0.0.1',
    placeholder: 'HOST',
  }),
  port: integer('port to listen on; 0 chooses a free one', { default: 8080, min: 0, max: 65_535 }),
  key: text('key that clients must send (default: the variable VISEDIT_KEY)', { placeholder: 'KEY' }),
  data: repeatable(file('records to browse, E-VQA or E-IC JSON (default: the mini world)')),
  images: repeatable(folder('folder that the image paths of the --data before it start from')),
  runs: repeatable(
    folder('folder of evaluations and trainings to show (default: ./runs, and the results that come with visedit)'),
  ),
  allowHost: repeatable(text('name that the server may be called by, besides its address', { placeholder: 'NAME' })),
  allowOrigin: repeatable(
    text('origin of web pages that may use the server, such as http://localhost:5173', { placeholder: 'ORIGIN' }),
  ),
  allowImageHost: repeatable(text('host that pictures may be fetched from (default: none)', { placeholder: 'HOST' })),
  queue: integer('number of requests that may wait', { default: 32, min: 0, max: 10_000 }),
  concurrency: integer('number of requests that are answered at the same time', { default: 4, min: 1, max: 64 }),
  timeout: number('longest time of a request, in seconds', { default: 300, above: 0, max: 86_400 }),
  measure: choice('which sets are measured again in the background: those that have changed, or none', ['changed', 'none'], {
    default: 'changed',
  }),
  drain: number('time that running requests have to finish when the server is stopped, in seconds', {
    default: 30,
    min: 0,
    max: 3600,
  }),
  maxUploadPixels: integer('largest picture that is taken, in pixels', { default: 16_000_000, min: 1, max: 1_000_000_000 }),
  maxBody: integer('largest body of a request, in bytes', { default: 33_554_432, min: 1024, max: 1_073_741_824 }),
  maxTokens: integer('longest answer, in tokens', { default: 4096, min: 1, max: 1_000_000 }),
  seed: integer('seed of the mini world', { default: 1, min: 0 }),
  threads: integer('number of threads (default: all cores)', { min: 1 }),
  privateCopy: outFolder(
    'folder to copy the models into before they are opened, so that nobody who changes their files can end the server; it takes their size on the disk and some seconds for each gigabyte, and goes when the server ends',
  ),
  ...modelOptions,
};

const shippedResults = join(packageRoot, 'results');

/** @throws Error when the options do not fit together */
export async function toServerOptions(
  given: ParsedValues<typeof serverOptions>,
  { quiet }: CommandContext,
): Promise<ServerOptions> {
  const [{ builtInModels }, { privateCopy: copyOf }, { pino, destination }] = await Promise.all([
    import('../../src/models/load.ts'),
    import('../../src/models/private-copy.ts'),
    import('pino'),
  ]);
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
    maxUploadPixels,
    maxBody,
    maxTokens,
    seed,
    privateCopy,
    ...rest
  } = given;
  if (data.length !== images.length)
    throw new Error(`${data.length} --data and ${images.length} --images are given; give one --images for each --data`);
  const own = process.env.VISEDIT_KEY;
  const models = model.length > 0 ? model : builtInModels;
  return {
    ...rest,
    editors: editor,
    models: privateCopy === undefined ? models : models.map((one) => copyOf(one, privateCopy)),
    key: key ?? (own === '' ? undefined : own),
    datasets: data.map((path, i) => ({ data: path, images: images[i]! })),
    runs: runs.length > 0 ? runs : ['runs', shippedResults].filter((path) => existsSync(path)),
    allowHosts: allowHost,
    allowOrigins: allowOrigin,
    allowImageHosts: allowImageHost,
    worldSeed: seed,
    limits: { pixels: maxUploadPixels, bodyBytes: maxBody, maxTokens },
    // Stdout belongs to the result.
    logger: pino({ level: quiet ? 'warn' : 'info' }, destination({ fd: 2, sync: true })),
  };
}
