/** `visedit attribute knockout` */
import { knockout } from '../../../../src/attribution/tools/knockout.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(knockout as never, [
  'attribute knockout --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out knockout.svg',
  'attribute knockout --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --layers 3-5 --json',
]);
