/** WebGPU against the processor, on a card or on SwiftShader, a Vulkan device that computes on the processor. */
import { expect, test } from 'vitest';
import { tryDevice } from '../../src/runtime/try-device.ts';
import { checks, hasSwiftShader, swiftShader } from './checks.ts';

if (process.env.VK_ICD_FILENAMES === undefined && hasSwiftShader) process.env.VK_ICD_FILENAMES = swiftShader;
const { works, fault } = await tryDevice('webgpu');
if (!works) console.warn(`tests of WebGPU are skipped: ${fault}`);

test.skipIf(!works).each(checks)('webgpu: $name', async ({ run }) => {
  for (const { what, value, limit } of await run('webgpu')) {
    console.log(`${what}: ${value}`);
    expect.soft(value, what).toBeLessThanOrEqual(limit);
  }
});
