/** The tools that explain an answer, one line each. */

import { attention } from './attention.ts';
import { check } from './check.ts';
import { heads } from './heads.ts';
import { knockout } from './knockout.ts';
import { lens } from './lens.ts';
import { neurons } from './neurons.ts';
import { steer } from './steer.ts';
import type { Tool } from './tool.ts';
import { patch, trace } from './trace.ts';
import { words } from './words.ts';

/** All tools that explain an answer, in the order of their pages. */
export const tools = [lens, attention, heads, neurons, words, trace, patch, knockout, steer, check] as unknown as readonly Tool[];

/** A tool by its name. @throws Error that names the tools there are */
export function toolNamed(id: string): Tool {
  const found = tools.find((tool) => tool.id === id);
  if (found === undefined)
    throw new Error(`there is no tool ${JSON.stringify(id)}; there are: ${tools.map((tool) => tool.id).join(', ')}`);
  return found;
}
