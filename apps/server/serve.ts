/** Starts a server and stops it again. */

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { pino } from 'pino';
import { buildApp } from './app.ts';
import { ApiError } from './errors.ts';
import { checkReach, type ServerOptions } from './options.ts';
import type { App } from './routes/app-types.ts';
import { Services } from './services.ts';

export interface RunningServer {
  /** without a slash at its end */
  readonly url: string;
  readonly services: Services;
  readonly app: App;
  /** Refuses new requests, gives running ones time to finish, and stops. A second call returns the same promise. */
  stop(): Promise<void>;
}

/** A client may take so long to send a request, milliseconds. */
const requestTimeout = 240_000;

const unreadable = new ApiError(400, 'invalid_http', 'this is not an HTTP request that can be read').body();

/** @throws Error when it would be open to the network without a key, a model or named records do not open, or the port is taken */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  checkReach(options);
  const logger = options.logger ?? pino({ level: 'silent' });
  const services = new Services(options, logger);
  try {
    await services.datasets.openNamed();
    services.facts = await services.engine.run('facts', null);
    const app = buildApp(services);
    const listener = getRequestListener(app.fetch, { errorHandler: () => Response.json(unreadable, { status: 400 }) });
    const server = createServer(
      { requestTimeout, headersTimeout: 20_000 },
      (request, response) => void listener(request, response),
    );
    server.maxConnections = 1024;
    server.on('clientError', (_error, socket) => {
      // Answers bytes that are not HTTP with an error of the same shape, and closes the connection.
      const body = JSON.stringify(unreadable);
      if (socket.writable)
        socket.end(
          `HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
        );
    });
    server.listen(options.port, options.host);
    await once(server, 'listening').catch((error: NodeJS.ErrnoException) => {
      throw new Error(cannotListen(options, error), { cause: error });
    });
    const { port, address } = server.address() as AddressInfo;
    const host = options.host.includes(':') ? `[${options.host}]` : options.host;
    logger.info({ address, port, models: services.models, edits: services.store.edits.length }, 'listening');
    let stopping: Promise<void> | undefined;
    return {
      url: `http://${host}:${port}`,
      services,
      app,
      stop: () => {
        stopping ??= drain(server, services);
        return stopping;
      },
    };
  } catch (error) {
    await services.close();
    throw error;
  }
}

function cannotListen({ host, port }: ServerOptions, { code, message }: NodeJS.ErrnoException): string {
  if (code === 'EADDRINUSE')
    return `port ${port} of ${host} is taken by another program; name another with --port, or 0 for any free one`;
  if (code === 'EACCES') return `no permission for port ${port}; name one above 1023 with --port`;
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return `${host} is no address of this machine; name another with --host`;
  return `cannot listen on ${host}, port ${port}: ${message}`;
}

async function drain(server: Server, services: Services): Promise<void> {
  const { logger, options, queue, jobs } = services;
  const seconds = options.drain ?? 30;
  services.draining = true;
  logger.info({ running: queue.running, waiting: queue.waiting }, 'draining');
  services.watching.abort();
  services.measuring.giveUpAll();
  // Probes are still answered, and new requests refused, until the work is done.
  const until = performance.now() + seconds * 1000;
  while ((queue.running > 0 || queue.waiting > 0 || jobs.unfinished > 0) && performance.now() < until)
    await new Promise((resolve) => setTimeout(resolve, 50));
  jobs.cancelAll('the server had to stop before the job was finished');
  services.hurry.abort();
  const closed = once(server, 'close');
  server.close();
  server.closeIdleConnections();
  const force = setTimeout(() => server.closeAllConnections(), 2000);
  await closed;
  clearTimeout(force);
  await services.close();
  logger.info('stopped');
}
