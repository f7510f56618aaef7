/** All commands, one line each; a file is loaded when its command is used. */
import { type CommandEntry, entry } from '../frame/command.ts';

export const commands: Record<string, CommandEntry> = {
  world: entry('make the mini world, a data set that needs no download', () => import('./world.ts')),
};
