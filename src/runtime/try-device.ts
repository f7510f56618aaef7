/** Whether a device works: a small product on it, next to its value on paper. */

import { f32 } from '../graph/dtype.ts';
import { input, matmul } from '../graph/index.ts';
import type { DeviceName } from '../onnx/device.ts';
import { engineOn } from './node.ts';

/** Whether a device works, and what is missing where it does not. */
export interface DeviceReport {
  readonly device: DeviceName;
  readonly works: boolean;
  /** the card's name and memory in bytes, where they are known */
  readonly card?: { readonly name: string; readonly memory: number } | undefined;
  /** what is missing, with the step that mends it */
  readonly fault?: string;
}

const SIZE = 256;

/** Opens the device and runs a product there. */
export async function tryDevice(device: DeviceName): Promise<DeviceReport> {
  try {
    const engine = engineOn(device);
    const program = await engine.compile({ y: matmul(input('x', ['n', SIZE]), input('w', ['m', SIZE]), false, true) });
    const ones = f32(new Float32Array(SIZE * SIZE).fill(1), [SIZE, SIZE]);
    const { y } = await program.run({ x: ones, w: ones });
    await program.release();
    const { card } = engine.device;
    if (y!.data.some((value: number | bigint) => value !== SIZE))
      return { device, works: false, card, fault: 'a product has a wrong value there; update its driver' };
    return { device, works: true, card };
  } catch (error) {
    return { device, works: false, fault: explain(device, (error as Error).message) };
  }
}

function explain(device: DeviceName, message: string): string {
  const own = message.replace(/^--device \w+: /, '').replace(/\. What this machine offers: .*$/, '');
  if (device !== 'webgpu') return own;
  const first = own.split('\n')[0]!.replace(/^.* was false\. /, '');
  return `no GPU that WebGPU can use was found (${first}); install the Vulkan driver of your card (on Debian: apt-get install libvulkan1 mesa-vulkan-drivers)`;
}
