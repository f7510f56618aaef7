/** The contract's world on small random models, which are quick. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type ContractWorld, closeContractWorld, openContractWorld } from '../../lab/contract.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder } from '../tiny-world.ts';

export async function openTinyContract(): Promise<{ world: ContractWorld; model: string; close: () => Promise<void> }> {
  const folder = temporaryFolder();
  const model = writeRandomLlava(join(folder, 'model'), { positions: 512 });
  const other = writeRandomLlava(join(folder, 'other'), { positions: 512, seed: 'other' });
  const world = await openContractWorld({ model, other });
  const close = async (): Promise<void> => {
    await closeContractWorld(world);
    rmSync(folder, { recursive: true, force: true });
  };
  return { world, model, close };
}
