/** `visedit attribute patch` */
import { patch } from '../../../../src/attribution/tools/trace.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(patch as never, [
  'attribute patch --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --against-image other.png --out patch.svg',
  'attribute patch --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --against-prompt "What is at the top right? The answer is:"',
]);
