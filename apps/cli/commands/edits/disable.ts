/** `visedit edits disable`: edits that act no longer. */
import { switchCommand } from '../../switching.ts';

export const command = switchCommand(false);
