/** `visedit attribute lens` */
import { lens } from '../../../../src/attribution/tools/lens.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(lens as never, [
  'attribute lens --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --positions picture --out lens.svg',
  'attribute lens --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --token 2 --json',
]);
