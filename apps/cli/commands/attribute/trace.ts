/** `visedit attribute trace` */
import { trace } from '../../../../src/attribution/tools/trace.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(trace as never, [
  'attribute trace --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out trace.svg',
  'attribute trace --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --parts patches --out patches.svg',
]);
