/** `visedit attribute neurons` */
import { neurons } from '../../../../src/attribution/tools/neurons.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(neurons as never, [
  'attribute neurons --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out neurons.svg',
  'attribute neurons --model mini-llava --data vqa_test.json --images images --limit 50 --layers 4-6 --csv neurons.csv',
]);
