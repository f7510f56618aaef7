/** `visedit edits enable`: edits that act again. */
import { switchCommand } from '../../switching.ts';

export const command = switchCommand(true);
