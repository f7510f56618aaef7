/**
 * Optimizers as part of the compiled step: the program returns new weights and new state, and the trainer feeds them to the next run.
 * Adam (Kingma & Ba 2015, as torch.optim.Adam), AdamW (Loshchilov & Hutter 2019), SGD with momentum,
 * and Muon (Jordan et al. 2024: momentum whose matrix is orthogonalised by five Newton-Schulz steps).
 */

import { f32, sizeOf, type Tensor } from '../graph/dtype.ts';
import {
  add,
  concat,
  constant,
  div,
  input,
  matmul,
  maximum,
  mul,
  type Node,
  nameOf,
  reshape,
  slice,
  sqrt,
  square,
  sub,
  sum,
} from '../graph/index.ts';

export interface OptimizerRule {
  rule: 'adam' | 'sgd' | 'muon';
  /** factor of the step's learning rate */
  rate?: number;
  /** decoupled weight decay: w ← w (1 − lr rate decay) */
  decay?: number;
  beta1?: number;
  beta2?: number;
  epsilon?: number;
}

const [BETA1, BETA2] = [0.9, 0.999];

/** Inputs of a step by name, each one node. */
type Scalars = (name: string) => Node;

const correction = (beta: number): string => `step.correction.${beta}`;

/** Inputs of a step beside the batch: `step.lr`, and for each beta of an Adam 1 − βᵗ, which takes out the start of its means at 0. */
export function stepFeeds(rules: Iterable<OptimizerRule>, lr: number, step: number): Record<string, Tensor> {
  const scalar = (x: number): Tensor => f32([x], []);
  const feeds: Record<string, Tensor> = { 'step.lr': scalar(lr) };
  for (const { rule, beta1 = BETA1, beta2 = BETA2 } of rules)
    if (rule === 'adam') for (const beta of [beta1, beta2]) feeds[correction(beta)] = scalar(1 - beta ** step);
  return feeds;
}

export interface Update {
  weight: Node;
  /** new state by slot name */
  state: Record<string, Node>;
}

const state = (parameter: Node, slot: string): Node => input(`${slot}:${nameOf(parameter)}`, parameter.shape);

/** Slots of state that a rule keeps for each weight. */
export const slots: Record<OptimizerRule['rule'], readonly string[]> = { adam: ['m', 'v'], sgd: ['m'], muon: ['m'] };

// m ← β1 m + (1−β1) g;  v ← β2 v + (1−β2) g²;  w ← w − lr (m / c1) / (sqrt(v / c2) + ε)
function adam(w: Node, g: Node, rule: OptimizerRule, s: Scalars): Update {
  const { beta1 = BETA1, beta2 = BETA2, epsilon = 1e-8 } = rule;
  const m = add(mul(state(w, 'm'), beta1), mul(g, 1 - beta1));
  const v = add(mul(state(w, 'v'), beta2), mul(square(g), 1 - beta2));
  const [c1, c2] = [s(correction(beta1)), s(correction(beta2))];
  const step = div(div(m, c1), add(div(sqrt(v), sqrt(c2)), epsilon));
  return { weight: decayed(w, rule, s, step), state: { m, v } };
}

function sgd(w: Node, g: Node, rule: OptimizerRule, s: Scalars): Update {
  const m = add(mul(state(w, 'm'), rule.beta1 ?? 0), g);
  return { weight: decayed(w, rule, s, m), state: { m } };
}

function decayed(w: Node, rule: OptimizerRule, s: Scalars, step: Node): Node {
  const lr = mul(s('step.lr'), rule.rate ?? 1);
  const kept = rule.decay === undefined ? w : mul(w, sub(1, mul(lr, rule.decay)));
  return sub(kept, mul(step, lr));
}

/** X ← aX + (bA + cA²)X with A = X Xᵀ, five times: singular values go towards 1. x [k, r, c] with r <= c. */
function orthogonalize(x: Node): Node {
  const norm = sqrt(sum(square(x), [1, 2], true));
  let y = div(x, add(norm, 1e-7));
  for (let i = 0; i < 5; i++) {
    const a = matmul(y, y, false, true);
    const b = add(mul(a, -4.775), mul(matmul(a, a), 2.0315));
    y = add(mul(y, 3.4445), matmul(b, y));
  }
  return y;
}

// m ← μ m + g;  u = g + μ m;  w ← w − lr sqrt(max(1, rows/cols)) orthogonal(u); equal shapes share one batched product
function muon(parameters: readonly { w: Node; g: Node; rule: OptimizerRule }[], s: Scalars): Map<Node, Update> {
  const groups = new Map<string, { w: Node; g: Node; rule: OptimizerRule; m: Node; u: Node; tall: boolean }[]>();
  for (const { w, g, rule } of parameters) {
    const [rows, columns] = w.shape as [number, number];
    const momentum = rule.beta1 ?? 0.95;
    const m = add(mul(state(w, 'm'), momentum), g);
    const u = add(g, mul(m, momentum));
    const key = `${rows}x${columns}`;
    groups.set(key, [...(groups.get(key) ?? []), { w, g, rule, m, u, tall: rows > columns }]);
  }
  const updates = new Map<Node, Update>();
  for (const group of groups.values()) {
    const [rows, columns] = group[0]!.w.shape as [number, number];
    const tall = group[0]!.tall;
    const stacked = concat(
      group.map(({ u }) => reshape(u, [1, rows, columns])),
      0,
    );
    const turned = tall ? orthogonalize(swapLast(stacked)) : orthogonalize(stacked);
    const result = tall ? swapLast(turned) : turned;
    group.forEach(({ w, rule, m }, i) => {
      const step = mul(reshape(slice(result, 0, i, i + 1), [rows, columns]), Math.sqrt(Math.max(1, rows / columns)));
      updates.set(w, { weight: decayed(w, rule, s, step), state: { m } });
    });
  }
  return updates;
}

const swapLast = (x: Node): Node => {
  const identity = eye(x.dim(1) as number);
  // A product with the identity reads the transpose inside the kernel; a Transpose node of a batch is slower.
  return matmul(x, identity, true, false);
};

const eye = (n: number): Node => {
  const data = new Float32Array(n * n);
  for (let i = 0; i < n; i++) data[i * n + i] = 1;
  return constant(f32(data, [1, n, n]));
};

/**
 * Updates for all parameters, as a function of the inputs that `stepFeeds` makes.
 * @param clip largest global norm of the gradients; larger ones are scaled down to it
 */
export function optimize(
  parameters: readonly Node[],
  gradients: readonly Node[],
  ruleOf: (name: string, shape: readonly number[]) => OptimizerRule,
  clip?: number,
): { updates: Map<Node, Update>; norm: Node } {
  const known = new Map<string, Node>();
  const scalars: Scalars = (name) => known.get(name) ?? known.set(name, input(name, [])).get(name)!;
  const squares = gradients.map((g) => sum(square(g)));
  const norm = sqrt(squares.reduce((a, b) => add(a, b)));
  const factor = clip === undefined ? undefined : div(clip, maximum(norm, clip));
  const updates = new Map<Node, Update>();
  const forMuon: { w: Node; g: Node; rule: OptimizerRule }[] = [];
  parameters.forEach((w, i) => {
    const g = factor === undefined ? gradients[i]! : mul(gradients[i]!, factor);
    const rule = ruleOf(nameOf(w), w.shape as number[]);
    if (rule.rule === 'muon') forMuon.push({ w, g, rule });
    else updates.set(w, rule.rule === 'adam' ? adam(w, g, rule, scalars) : sgd(w, g, rule, scalars));
  });
  for (const [w, update] of muon(forMuon, scalars)) updates.set(w, update);
  return { updates, norm };
}

export function zeros(shape: readonly number[]): Tensor<'float32'> {
  return f32(new Float32Array(sizeOf(shape)), shape);
}
