/** A compiled training step with its weights and optimizer state: run it, save it, restore it. */

import { f32, type Tensor } from '../graph/dtype.ts';
import { add, gradient, input, mul, type Node, nameOf, parameterOp, topological } from '../graph/index.ts';
import type { CompileOptions, Feeds, Program } from '../runtime/program.ts';
import { type OptimizerRule, optimize, slots, stepFeeds, zeros } from './optimizers.ts';

export interface TrainerOptions {
  loss: Node;
  /** values to return beside the loss */
  metrics?: Record<string, Node>;
  /** starting values of the trained weights, by parameter name; all other parameters stay bound to `compile.weights` */
  initial: ReadonlyMap<string, Tensor<'float32'>>;
  rule: (name: string, shape: readonly number[]) => OptimizerRule;
  clip?: number;
  /**
   * Gradients and update as two programs: a step then takes its batch in parts whose gradients are added up. The loss must be a sum over the
   * batch (weights of the whole batch in every part), so that the parts' sum is the gradient of the whole.
   */
  parts?: boolean;
  compile: (outputs: Record<string, Node>, options: CompileOptions) => Promise<Program>;
  options?: CompileOptions;
  /**
   * Gradients pass through half precision: the loss is multiplied by a power of two before, so that small ones do not vanish, and they are divided
   * by it after. A step that overflows is repeated with a smaller one.
   */
  half?: boolean;
}

/** The scale of the loss that a run begins with. */
const SCALE = 2 ** 12;

const sumOf = (name: string): string => `sum:${name}`;

export class LossError extends Error {
  override name = 'LossError';
}

export class Trainer {
  step = 0;
  readonly weights: Map<string, Tensor<'float32'>>;
  readonly #state: Map<string, Tensor<'float32'>>;
  readonly #program: Program;
  /** weights from summed gradients, where batches come in parts */
  readonly #update: Program | undefined;
  readonly #rules: ReadonlyMap<string, OptimizerRule>;
  readonly #metrics: readonly string[];
  #scale: number;

  private constructor(
    program: Program,
    update: Program | undefined,
    weights: Map<string, Tensor<'float32'>>,
    rules: ReadonlyMap<string, OptimizerRule>,
    metrics: readonly string[],
    half: boolean,
  ) {
    this.#scale = half ? SCALE : 1;
    this.#program = program;
    this.#update = update;
    this.weights = weights;
    this.#rules = rules;
    this.#metrics = metrics;
    this.#state = new Map();
    for (const [name, rule] of rules)
      for (const slot of slots[rule.rule]) this.#state.set(`${slot}:${name}`, zeros(weights.get(name)!.shape));
  }

  static async create({
    loss,
    metrics = {},
    initial,
    rule,
    clip,
    parts = false,
    compile,
    options = {},
    half = false,
  }: TrainerOptions): Promise<Trainer> {
    const trained = topological([loss]).filter((n) => n.op === parameterOp && initial.has(nameOf(n)));
    const unused = [...initial.keys()].filter((name) => !trained.some((n) => nameOf(n) === name));
    if (unused.length > 0) throw new Error(`the loss does not depend on ${unused.join(', ')}`);
    const rules = new Map(trained.map((n) => [nameOf(n), rule(nameOf(n), n.shape as number[])]));
    const gradients = half
      ? gradient(mul(loss, input('step.scale', [])), trained).map((dw) => mul(dw, input('step.unscale', [])))
      : gradient(loss, trained);
    const sums = trained.map((node) => input(sumOf(nameOf(node)), node.shape));
    const { updates, norm } = optimize(trained, parts ? sums : gradients, (name) => rules.get(name)!, clip);
    const values: Record<string, Node> = { loss, ...metrics };
    const changes: Record<string, Node> = { gradientNorm: norm };
    for (const [node, { weight, state }] of updates) {
      changes[`w:${nameOf(node)}`] = weight;
      for (const [slot, value] of Object.entries(state)) changes[`${slot}:${nameOf(node)}`] = value;
    }
    if (parts)
      trained.forEach((node, i) => {
        values[sumOf(nameOf(node))] = add(sums[i]!, gradients[i]!);
      });
    const frozen = options.weights;
    const given: CompileOptions = { ...options, weights: (name) => (initial.has(name) ? undefined : frozen?.(name)) };
    const program = await compile(parts ? values : { ...values, ...changes }, given);
    const update = parts ? await compile(changes, given) : undefined;
    return new Trainer(program, update, new Map(initial), rules, Object.keys(metrics), half);
  }

  /**
   * One optimizer step over a batch, or over the parts of one: their losses and metrics are added up.
   * @throws LossError when the loss or the gradient is not finite; weights and state then stay as they were
   */
  async run(
    batch: Feeds | readonly Feeds[],
    lr: number,
  ): Promise<{ loss: number; gradientNorm: number; metrics: Record<string, Tensor> }> {
    const t = this.step + 1;
    const scalar = (x: number): Tensor => f32([x], []);
    const state = stepFeeds(this.#rules.values(), lr, t);
    for (const [name, w] of this.weights) state[name] = w;
    for (const [name, s] of this.#state) state[name] = s;
    const list = Array.isArray(batch) ? (batch as readonly Feeds[]) : [batch as Feeds];
    const once = (): Promise<Record<string, Tensor>> => {
      const scaled = { ...state, 'step.scale': scalar(this.#scale), 'step.unscale': scalar(1 / this.#scale) };
      return this.#update === undefined ? this.#whole(list, scaled) : this.#inParts(this.#update, list, scaled);
    };
    const value = (result: Record<string, Tensor>, name: string): number => (result[name]!.data as Float32Array)[0]!;
    let out = await once();
    while (this.#scale > 1 && Number.isFinite(value(out, 'loss')) && !Number.isFinite(value(out, 'gradientNorm'))) {
      this.#scale /= 4;
      out = await once();
    }
    const loss = value(out, 'loss');
    const gradientNorm = value(out, 'gradientNorm');
    if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm)) {
      throw new LossError(
        `step ${t}: the loss is ${loss} and the gradient norm ${gradientNorm}; weights of step ${this.step} are kept. Try a lower learning rate or --clip`,
      );
    }
    this.step = t;
    for (const name of this.weights.keys()) this.weights.set(name, out[`w:${name}`] as Tensor<'float32'>);
    for (const name of this.#state.keys()) this.#state.set(name, out[name] as Tensor<'float32'>);
    return { loss, gradientNorm, metrics: Object.fromEntries(this.#metrics.map((m) => [m, out[m]!])) };
  }

  #whole([feeds, ...more]: readonly Feeds[], state: Feeds): Promise<Record<string, Tensor>> {
    if (feeds === undefined || more.length > 0)
      throw new Error('this trainer takes a batch whole; create it with `parts` for several');
    return this.#program.run({ ...feeds, ...state });
  }

  async #inParts(update: Program, list: readonly Feeds[], state: Feeds): Promise<Record<string, Tensor>> {
    let sums: Record<string, Tensor> = {};
    for (const [name, w] of this.weights) sums[sumOf(name)] = zeros(w.shape);
    const totals = new Map<string, Tensor<'float32'>>();
    for (const feeds of list) {
      const out = await this.#program.run({ ...feeds, ...state, ...sums });
      sums = Object.fromEntries([...this.weights.keys()].map((name) => [sumOf(name), out[sumOf(name)]!]));
      for (const name of ['loss', ...this.#metrics]) {
        const value = out[name] as Tensor<'float32'>;
        const before = totals.get(name);
        totals.set(
          name,
          before === undefined
            ? value
            : f32(
                before.data.map((x, i) => x + value.data[i]!),
                value.shape,
              ),
        );
      }
    }
    return { ...(await update.run({ ...state, ...sums })), ...Object.fromEntries(totals) };
  }

  /** Everything that the next step depends on. */
  state(): Map<string, Tensor<'float32'>> {
    return new Map([...[...this.weights].map(([k, v]): [string, Tensor<'float32'>] => [`w:${k}`, v]), ...this.#state]);
  }

  restore(step: number, state: ReadonlyMap<string, Tensor<'float32'>>): void {
    const need = (name: string, like: Tensor): Tensor<'float32'> => {
      const t = state.get(name);
      if (t === undefined) throw new Error(`the checkpoint lacks ${name}`);
      if (t.shape.join() !== like.shape.join())
        throw new Error(`the checkpoint's ${name} is [${t.shape}], this run needs [${like.shape}]`);
      return t;
    };
    const weights = [...this.weights].map(([name, w]): [string, Tensor<'float32'>] => [name, need(`w:${name}`, w)]);
    const slotsNow = [...this.#state].map(([name, s]): [string, Tensor<'float32'>] => [name, need(name, s)]);
    for (const [k, v] of weights) this.weights.set(k, v);
    for (const [k, v] of slotsNow) this.#state.set(k, v);
    this.step = step;
  }

  async release(): Promise<void> {
    await this.#program.release();
    await this.#update?.release();
  }
}
