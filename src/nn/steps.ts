/** Several optimizer steps as one program: a loop whose turns are steps, between which weights and optimizer state stay on the device. */

import type { Dim } from '../graph/dim.ts';
import {
  add,
  bind,
  choose,
  equal,
  input,
  inputOp,
  loop,
  type Node,
  nameOf,
  parameterOp,
  sub,
  topological,
  where,
} from '../graph/index.ts';

/** The input of one of the steps. */
export const stepInput = (step: number, name: string): string => `${step}/${name}`;

/** Which step an input belongs to; undefined: to all. */
export const stepOf = (name: string): number | undefined => {
  const found = /^(\d+)\//.exec(name)?.[1];
  return found === undefined ? undefined : Number(found);
};

/** Symbols of one of the steps: batches differ in size. */
const ofStep = (step: number, dims: readonly Dim[]): Dim[] =>
  dims.map((d) => (typeof d === 'number' ? d : d.replace(/[A-Za-z_]\w*/g, (symbol) => `${symbol}_${step}`)));

/**
 * Up to `count` steps.
 * @param step the outputs of one step: the new values of what it changes, and scalars
 * @param changed names of its inputs that a step gives anew, with what they are called among the outputs
 * @returns what `changed` calls its outputs, after the last step, and the scalars of every step [steps]. Inputs: `turns` [], those of `changed` at the start, and all
 * others once for each step. A step whose loss or gradient is not finite changes nothing and is the last.
 */
export function severalSteps(
  step: Readonly<Record<string, Node>>,
  changed: ReadonlyMap<string, string>,
  { count, trained }: { count: number; trained: (weight: string) => boolean },
): Record<string, Node> {
  const leaves = topological(Object.values(step)).filter(
    (node) => node.op === inputOp || (node.op === parameterOp && trained(nameOf(node))),
  );
  const byName = new Map(leaves.map((node) => [nameOf(node), node]));
  const given = [...byName.values()].filter((node) => !changed.has(nameOf(node)));
  const lists = Array.from({ length: count }, (_, i) =>
    given.map((node) => input(stepInput(i, nameOf(node)), ofStep(i, node.shape), node.dtype)),
  );
  const outputs = new Set(changed.values());
  const scalars = Object.keys(step).filter((name) => !outputs.has(name));
  const { last, each } = loop(
    { turns: input('turns', [], 'int64'), symbol: 'steps' },
    Object.fromEntries([...changed.keys()].map((name) => [name, { start: byName.get(name)!, trained: true }])),
    (values, turn) => {
      const chosen = choose(turn, lists, given);
      const own = bind(
        step,
        new Map([...given.map((node, i): [string, Node] => [nameOf(node), chosen[i]!]), ...Object.entries(values)]),
      );
      const [loss, norm] = [own.loss!, own.gradientNorm!];
      // x − x of what is not finite is not a number, which equals nothing.
      const good = equal(add(sub(loss, loss), sub(norm, norm)), 0);
      return {
        next: Object.fromEntries([...changed].map(([name, output]) => [name, where(good, own[output]!, values[name]!)])),
        more: good,
        each: Object.fromEntries(scalars.map((name) => [name, own[name]!])),
      };
    },
  );
  return { ...Object.fromEntries([...changed].map(([name, output]) => [output, last[name]!])), ...each };
}
