/** Event streams of jobs and runs. Their number has a limit. They end when the client leaves, and when the server stops. */

import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';

/** @throws ApiError 429 when too many are open */
export function watching(services: Services, client: AbortSignal): { signal: AbortSignal; leave: () => void } {
  const { limits } = services;
  if (services.eventStreams >= limits.eventStreams)
    throw new ApiError(429, 'too_many_streams', `${limits.eventStreams} event streams are open; close some`, { retryAfter: 5 });
  services.eventStreams++;
  const controller = new AbortController();
  const stop = (): void => controller.abort();
  let open = true;
  const leave = (): void => {
    if (!open) return;
    open = false;
    services.eventStreams--;
    client.removeEventListener('abort', leave);
    services.watching.signal.removeEventListener('abort', stop);
    stop();
  };
  client.addEventListener('abort', leave, { once: true });
  services.watching.signal.addEventListener('abort', stop, { once: true });
  return { signal: controller.signal, leave };
}
