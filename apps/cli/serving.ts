/** Runs a server until the command is stopped by Ctrl-C or SIGTERM; then it drains. */
import type { RunningServer, ServerOptions } from '../server/index.ts';
import type { CommandContext } from './frame/context.ts';

/** @param announce told when it listens */
export async function serveUntilStopped(
  options: ServerOptions,
  context: CommandContext,
  announce: (server: RunningServer) => void,
): Promise<never> {
  const { startServer } = await import('../server/index.ts');
  const server = await startServer(options);
  announce(server);
  context.onInterrupt(async () => {
    await server.stop();
    // It did what it was asked to: a supervisor must not take this for a failure.
    return 0;
  });
  // Being stopped ends the process.
  return new Promise(() => {});
}
