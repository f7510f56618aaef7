/** `visedit attribute heads` */
import { heads } from '../../../../src/attribution/tools/heads.ts';
import { toolCommand } from './tool-command.ts';

export const command = toolCommand(heads as never, [
  'attribute heads --model mini-llava --image scene.png --prompt "What is at the top left? The answer is:" --out heads.svg',
  'attribute heads --model mini-llava --data vqa_test.json --images images --limit 50 --csv heads.csv --out heads.svg',
]);
