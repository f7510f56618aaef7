/** What can be asked of the tools that explain an answer, in a reader's words. */
import type { Dataset, Tool } from '../../api/types.ts';

export interface Choice {
  readonly name: string;
  readonly tool: string;
  /** other values than the tool's own defaults */
  readonly options: Readonly<Record<string, string | number | boolean>>;
  readonly picture: boolean;
  /** False: it reads or puts back single patches’ states, which hold something of other patches where they see each other. */
  readonly causal?: false;
  /** What the drawing shows. */
  readonly says: string;
}

export const choices: readonly Choice[] = [
  {
    ...{
      name: 'Which patches bring the answer back',
      tool: 'trace',
      options: { parts: 'patches', draws: 2 },
      picture: true,
      causal: false,
    },
    says: 'Noise takes the answer away; each patch is put back alone, after each layer. A bright patch brings the answer back.',
  },
  {
    ...{ name: 'Which layers carry the answer', tool: 'trace', options: { parts: 'groups' }, picture: true },
    says: 'Noise takes the answer away; the states of the picture, of the words or of the last token are put back. 1: the answer is back.',
  },
  {
    ...{ name: 'What carries the answer into another input', tool: 'patch', options: { parts: 'groups' }, picture: false },
    says: 'The same question about another picture, or in other words, has another answer. States of this run are put into that one. 1: this answer comes with them.',
  },
  {
    ...{ name: 'Which way the answer flows', tool: 'knockout', options: {}, picture: true },
    says: 'In a few layers one part of the input does not see another. A large value: the answer came that way.',
  },
  {
    ...{ name: 'Which words it hangs on', tool: 'words', options: {}, picture: false },
    says: 'Each word is hidden from everything behind it. A large value: the answer hangs on the word.',
  },
  {
    ...{ name: 'Which heads speak for it', tool: 'heads', options: {}, picture: false },
    says: 'Each head’s own part is taken out at the end. Red: the head speaks for the word; blue: against it.',
  },
  {
    ...{ name: 'What each patch is about', tool: 'lens', options: { positions: 'picture' }, picture: true, causal: false },
    says: 'What the model would say at each patch, after each layer.',
  },
  {
    ...{ name: 'What each word is about', tool: 'lens', options: { positions: 'words' }, picture: false },
    says: 'What the model would say next at each word, after each layer.',
  },
  {
    ...{ name: 'Where the layers look', tool: 'attention', options: {}, picture: true, causal: false },
    says: 'Attention says where a layer looks, not whether it matters.',
  },
  {
    ...{ name: 'Where each head looks', tool: 'attention', options: { each: true }, picture: true, causal: false },
    says: 'Attention says where a head looks, not whether it matters.',
  },
  {
    ...{ name: 'What it says when it is steered', tool: 'steer', options: {}, picture: false },
    says: 'The difference of two prompts’ states is added to the states of this question.',
  },
  {
    ...{ name: 'Whether the maps are right', tool: 'check', options: { hide: 'grey,blur' }, picture: true },
    says: 'The patches that a map names are hidden, and the answer is measured. A good map’s line falls fast when they are hidden, and rises fast when only they are shown.',
  },
  {
    ...{ name: 'Where a correction should go in', tool: 'plan', options: { records: 8 }, picture: false },
    says: 'Questions of a data set are asked about two pictures each. The layer up to which the picture’s tokens carry the answer is where an editor can still change it.',
  },
];

/** The choice with the tool and the options that an address names; where none has these options, the first choice of that tool. */
export function choiceOf(
  offered: readonly Choice[],
  tool: string | null,
  option: (name: string) => string | null,
): Choice | undefined {
  const own = offered.filter((one) => one.tool === tool);
  return own.find(({ options }) => Object.entries(options).every(([name, value]) => option(name) === String(value))) ?? own[0];
}

/** A plan is made of a data set, not of one question; its options look like those of the tools. */
export const planTool = (datasets: readonly Dataset[] | undefined): Tool | undefined => {
  const names = datasets?.map(({ id }) => id);
  if (names === undefined || names.length === 0) return undefined;
  return {
    ...{ id: 'plan', summary: '', picture: false, compares: null },
    details: 'More records make the plan surer. It is a plan for the model without corrections.',
    options: {
      properties: {
        records: { type: 'integer', minimum: 2, default: 8, description: 'first records of the data set that are read' },
        dataset: { type: 'string', enum: names, default: names[0]!, description: 'data set' },
      },
    },
  };
};
