/** Connections to Redis, and the queue that workers take batches from. */

import { Redis } from 'ioredis';
import type { RecordResult } from '../../src/evaluation/metrics.ts';
import type { Finished } from '../../src/evaluation/worker.ts';

export const queueName = 'visedit';

/** What a worker makes of it. */
export interface Evaluated extends Finished {
  readonly results: readonly RecordResult[];
}

/** Seconds without Redis after which a run gives up. */
export const patienceSeconds = Number(process.env.VISEDIT_QUEUE_PATIENCE ?? 60);

/** How Redis is named in messages: without its password. */
export function shownUrl(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}

/**
 * A connection that is opened anew when it breaks.
 * @throws Error when there is no Redis at the address
 */
export async function connect(url: string): Promise<Redis> {
  if (!/^rediss?:\/\/./.test(url) || !URL.canParse(url))
    throw new Error(`the queue is the address of a Redis, such as redis://127.0.0.1:6379; got ${JSON.stringify(url)}`);
  const redis = new Redis(url, {
    lazyConnect: true,
    maxRetriesPerRequest: null,
    connectTimeout: 5000,
    retryStrategy: (times) => Math.min(100 * times, 2000),
  });
  // What breaks a connection is told by those who wait for it.
  let reason = '';
  redis.on('error', (error: Error) => {
    reason = error.message;
  });
  const refused = new Promise<never>((_, reject) => {
    setTimeout(() => reject(new Error(reason || 'no answer within 6 seconds')), 6000).unref();
    redis.once('error', reject);
  });
  try {
    await Promise.race([redis.connect().then(() => redis.ping()), refused]);
  } catch (error) {
    redis.disconnect();
    throw new Error(
      `no Redis answers at ${shownUrl(url)} (${(error as Error).message}); start one (Debian: apt-get install redis-server), or check address and password`,
      { cause: error },
    );
  }
  refused.catch(() => {});
  return redis;
}
