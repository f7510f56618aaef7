/** `visedit attribute check` */
import { check } from '../../../../src/attribution/tools/check.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(check as never, [
  'attribute check --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --against-image other.png --out check.svg',
  'attribute check --model mini-llava --data vqa_test.json --images images --limit 40 --csv check.csv',
]);
