/** `steer` keeps the contract of all editors. Any test runner can run the checks one by one. */
import { closeContractWorld, editorContract, openContractWorld } from 'visedit/lab';
import { steer } from './steer.js';

const world = await openContractWorld();
for (const { name, run } of editorContract(steer, world)) {
  await run();
  console.log(`kept: ${name}`);
}
await closeContractWorld(world);
