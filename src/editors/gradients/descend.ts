/** A few steps of Adam (AdamW with decay) on the values of one edit, in one compiled program for all edits of a kind. */

import { gradient, type Node, nameOf, type Tensor } from '../../graph/index.ts';
import type { Vlm } from '../../models/vlm.ts';
import { type OptimizerRule, optimize, slots, stepFeeds, zeros } from '../../nn/optimizers.ts';
import { LossError } from '../../nn/trainer.ts';
import type { Feeds } from '../../runtime/program.ts';

export interface DescentSettings {
  /** at most so many steps */
  steps: number;
  rate: number;
  /** decoupled weight decay */
  decay: number;
  /** stops once the loss is below */
  until: number;
}

/** What is trained for one edit, and how. */
export interface Descent<A extends readonly unknown[]> {
  /** the loss, and the inputs that are trained: a function of the module that asks */
  build(vlm: Vlm, ...args: A): { loss: Node; trained: readonly Node[] };
  /** as of `Vlm.program` */
  args: A;
  /** starting values by input name */
  initial: ReadonlyMap<string, Tensor<'float32'>>;
  feeds: Feeds;
  settings: DescentSettings;
}

export interface Descended {
  values: Map<string, Tensor<'float32'>>;
  /** steps taken */
  steps: number;
  /** of the values before the last step that was taken or refused */
  loss: number;
}

/** One step of AdamW: the loss, and every trained value with its state as they are after it. */
function stepGraph(
  vlm: Vlm,
  build: Descent<readonly unknown[]>['build'],
  args: readonly unknown[],
  rule: OptimizerRule,
): Record<string, Node> {
  const { loss, trained } = build(vlm, ...args);
  const { updates } = optimize(trained, gradient(loss, trained), () => rule);
  const outputs: Record<string, Node> = { loss };
  for (const [node, { weight, state }] of updates) {
    outputs[nameOf(node)] = weight;
    for (const [slot, value] of Object.entries(state)) outputs[`${slot}:${nameOf(node)}`] = value;
  }
  return outputs;
}

/** Some steps of Adam on the values of one edit. @throws LossError when the loss is not finite */
export async function descend<A extends readonly unknown[]>(
  vlm: Vlm,
  { build, args, initial, feeds, settings }: Descent<A>,
): Promise<Descended> {
  const { rate, decay } = settings;
  const rule = { rule: 'adam', decay } as const;
  const program = await vlm.program(stepGraph, build as Descent<readonly unknown[]>['build'], args, rule);
  let values = new Map(initial);
  let state = new Map(
    [...initial].flatMap(([name, t]) => slots.adam.map((slot) => [`${slot}:${name}`, zeros(t.shape)] as const)),
  );
  let loss = Number.NaN;
  for (let step = 1; step <= settings.steps; step++) {
    const out = await program.run({
      ...feeds,
      ...Object.fromEntries(values),
      ...Object.fromEntries(state),
      ...stepFeeds([rule], rate, step),
    });
    loss = (out.loss!.data as Float32Array)[0]!;
    if (!Number.isFinite(loss)) throw new LossError(`step ${step} of the edit: the loss is ${loss}. Try a lower rate`);
    if (loss < settings.until) return { values, steps: step - 1, loss };
    values = new Map([...values.keys()].map((name) => [name, out[name] as Tensor<'float32'>]));
    state = new Map([...state.keys()].map((name) => [name, out[name] as Tensor<'float32'>]));
  }
  return { values, steps: settings.steps, loss };
}
