/** `--protocol`: how editors are set. */
import { choice } from './frame/values.ts';

export const protocol = choice(
  "how editors are set: as fits the model, or as their authors and VisEdit's run them",
  ['tuned', 'published'] as const,
  {
    default: 'tuned',
  },
);
