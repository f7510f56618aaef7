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
    lens: entry('what the model would say after each layer, at words and at patches', () => import('./attribute/lens.ts')),
    attention: entry('where each head of each layer looks', () => import('./attribute/attention.ts')),
    heads: entry('how much each head and each MLP contributes to the answer directly', () => import('./attribute/heads.ts')),
    neurons: entry(
      'which neurons of the MLPs contribute to the answer directly, and what they say',
      () => import('./attribute/neurons.ts'),
    ),
    words: entry('how much the answer hangs on each word of the prompt', () => import('./attribute/words.ts')),
    trace: entry('causal tracing: which states bring the answer back under noise', () => import('./attribute/trace.ts')),
    patch: entry('activation patching: which states carry the answer into another input', () => import('./attribute/patch.ts')),
    knockout: entry('which way the answer flows: attention edges are cut', () => import('./attribute/knockout.ts')),
    check: entry('whether maps name what the answer hangs on', () => import('./attribute/check.ts')),
    plan: entry('where to insert an editor, with the evidence', () => import('./attribute/plan.ts')),
    steer: entry('what the model answers when the difference of two prompts is added', () => import('./attribute/steer.ts')),
  },
};
