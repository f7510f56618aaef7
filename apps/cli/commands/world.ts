/** `visedit world`: the mini world, a generator of scenes with questions, answers and edits that needs no download. */
import { type CommandGroup, entry } from '../frame/command.ts';

export const command: CommandGroup = {
  commands: {
    build: entry('write the records and pictures of the mini world', () => import('./world/build.ts')),
    pretrain: entry('train a mini backbone on the mini world', () => import('./world/pretrain.ts')),
    exam: entry('test a model on new scenes of the mini world', () => import('./world/exam.ts')),
  },
};
