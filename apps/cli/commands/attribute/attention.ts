/** `visedit attribute attention` */
import { attention } from '../../../../src/attribution/tools/attention.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(attention as never, [
  'attribute attention --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --layers 4-6 --out attention.svg',
]);
