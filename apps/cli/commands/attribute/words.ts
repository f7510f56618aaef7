/** `visedit attribute words` */
import { words } from '../../../../src/attribution/tools/words.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(words as never, [
  'attribute words --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out words.svg',
]);
