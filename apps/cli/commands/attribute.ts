/** `visedit attribute`: why a model answers as it does: which modules, which parts of the picture. */
import { type CommandGroup, entry } from '../frame/command.ts';

export const command: CommandGroup = {
  commands: {
    modules: entry(
      "how much each layer's attention and MLP output contributes to the answer",
      () => import('./attribute/modules.ts'),
    ),
    visual: entry(
      'how much each part of the picture contributes to the attention output at the last position',
      () => import('./attribute/visual.ts'),
    ),
  },
};
