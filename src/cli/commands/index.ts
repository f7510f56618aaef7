/** All commands, one line each: `name: entry('what it does', () => import('./name.ts'))`; a file is loaded when its command is used. */
import type { CommandEntry } from '../frame/command.ts';

export const commands: Record<string, CommandEntry> = {};
