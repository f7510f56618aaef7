/**
 * Which values of a graph are held in half precision on a device that computes in it: products with frozen half-precision weights, and what follows
 * from them. The graph itself is declared in float32. Where a half-precision value meets a float32 one of the same shape, float32 wins, so the
 * residual stream, norms, losses, trained weights and their gradients stay float32.
 */

import { showShape } from '../graph/dim.ts';
import { inputOp, type Node, nameOf, parameterOp } from '../graph/node.ts';
import { bodyInputOp, type LoopBody, loopOp, loopResultOp } from '../graph/ops/loop.ts';

/** How a named weight is given: stored in half precision or in whole numbers, in float32, or at every run (it is trained). */
export type WeightKind = 'half' | 'float' | 'given';

/** The nodes of a graph, and of the loops in it, that are held in half precision. @param order inputs before their users */
export function halfNodes(order: readonly Node[], kindOf: (name: string) => WeightKind): Set<Node> {
  const halves = new Set<Node>();
  const trained = new Set<Node>();
  const isFloat = (x: Node): boolean => x.dtype === 'float32';
  const isHalfWeight = (x: Node): boolean => x.op === parameterOp && kindOf(nameOf(x)) === 'half';
  const isHalf = (x: Node): boolean => halves.has(x) || isHalfWeight(x);
  const decide = (node: Node): boolean => {
    const floats = node.inputs.filter(isFloat);
    if (!isFloat(node)) return false;
    switch (node.op.half) {
      case 'product':
        return floats.some(isHalf) && !floats.some((x) => trained.has(x));
      case 'elementwise': {
        const shape = showShape(node.shape);
        const whole = floats.filter((x) => showShape(x.shape) === shape);
        return whole.some((x) => halves.has(x)) && whole.every(isHalf) && !floats.some((x) => trained.has(x));
      }
      case 'moves':
        return floats.length > 0 && floats.every(isHalf);
      case 'rows':
        return halves.has(node.inputs[0]!);
      default:
        return false;
    }
  };
  const walk = (nodes: readonly Node[]): void => {
    for (const node of nodes) {
      if (node.op === inputOp) continue;
      if (node.op === parameterOp) {
        if (kindOf(nameOf(node)) === 'given') trained.add(node);
        continue;
      }
      if (node.op === loopOp) {
        decideLoop(node.attributes.body as LoopBody);
        continue;
      }
      if (node.op === loopResultOp) {
        const { carried, each } = node.inputs[0]!.attributes.body as LoopBody;
        const index = node.attributes.index as number;
        const source = carried[index]?.next ?? each[index - carried.length]!;
        if (halves.has(source)) halves.add(node);
        continue;
      }
      if (node.op.half === 'moves' && node.inputs.some((x) => trained.has(x))) trained.add(node);
      if (decide(node)) halves.add(node);
    }
  };
  // A carried value is held in half precision when its next one is: assumed of all, then taken back where it is not so.
  const decideLoop = ({ carried, nodes }: LoopBody): void => {
    for (const one of carried) if (one.trained) trained.add(one.value);
    const candidates = new Set(carried.filter((one) => isFloat(one.value) && !one.trained));
    for (;;) {
      for (const { value } of carried) halves.delete(value);
      for (const node of nodes) halves.delete(node);
      for (const { value } of candidates) halves.add(value);
      walk(nodes.filter((node) => node.op !== bodyInputOp));
      const wrong = [...candidates].filter(({ next, value }) => !halves.has(next) || next === value);
      if (wrong.length === 0) return;
      for (const one of wrong) candidates.delete(one);
    }
  };
  walk(order);
  return halves;
}
