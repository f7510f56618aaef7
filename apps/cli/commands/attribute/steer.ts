/** `visedit attribute steer` */
import { steer } from '../../../../src/attribution/tools/steer.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(steer as never, [
  'attribute steer --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --toward "a cat" --away "a dog" --layer 3',
]);
