/** CUDA against the processor: `npm run test:gpu`; skipped with a message where there is no card. */
import { expect, test } from 'vitest';
import { tryDevice } from '../../src/runtime/try-device.ts';
import { checks } from './checks.ts';

const { works, fault, card } = await tryDevice('cuda');
console.warn(works ? `CUDA: ${card?.name}` : `tests of CUDA are skipped: ${fault}`);

test.skipIf(!works).each(checks)('cuda: $name', async ({ run }) => {
  for (const { what, value, limit } of await run('cuda')) {
    console.log(`${what}: ${value}`);
    expect.soft(value, what).toBeLessThanOrEqual(limit);
  }
});
