/** The same question in other words, where it is worded as the mini world words its questions. */

import { answerCue } from '../../src/input/records.ts';
import { templates } from './questions.ts';

interface Worded {
  readonly pattern: RegExp;
  readonly slots: readonly string[];
  readonly others: readonly string[];
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

const worded: readonly Worded[] = Object.values(templates).flatMap((wordings) =>
  wordings.map((wording, i): Worded => {
    const parts = wording.split(/\{(.+?)\}/);
    const slots = parts.filter((_, at) => at % 2 === 1);
    const pattern = parts.map((part, at) => (at % 2 === 1 ? '(.{1,60}?)' : escaped(part))).join('');
    // The wordings behind this one, and then those before it.
    const others = [...wordings.slice(i + 1), ...wordings.slice(0, i)];
    return { pattern: new RegExp(`^${pattern}$`, 'i'), slots, others };
  }),
);

/** Another wording of a prompt, with the cue for the answer where it had one; undefined where its wording is not known. */
export function otherWording(prompt: string): string | undefined {
  const cue = prompt.endsWith(answerCue) ? answerCue : '';
  const question = cue === '' ? prompt : prompt.slice(0, -cue.length);
  for (const { pattern, slots, others } of worded) {
    const found = pattern.exec(question);
    if (found === null) continue;
    const words = new Map(slots.map((slot, i) => [slot, found[i + 1]!]));
    const other = others.find((wording) => [...wording.matchAll(/\{(.+?)\}/g)].every(([, slot]) => words.has(slot!)));
    if (other !== undefined) return other.replace(/\{(.+?)\}/g, (_, slot: string) => words.get(slot)!) + cue;
  }
  return undefined;
}
