/** A compiled training step with its weights and optimizer state: run it, save it, restore it. */

import { f32, i64, type Tensor } from '../graph/dtype.ts';
import { add, gradient, input, mul, type Node, nameOf, parameterOp, topological } from '../graph/index.ts';
import { placeholder } from '../onnx/branches.ts';
import { DeviceError } from '../runtime/card-memory.ts';
import type { CompileOptions, Feeds, Program } from '../runtime/program.ts';
import { type OptimizerRule, optimize, slots, stepFeeds, zeros } from './optimizers.ts';
import { severalSteps, stepInput, stepOf } from './steps.ts';

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
  /** how many steps one run makes; weights and state stay on the device between them. Default: 1. A batch that comes in parts is a run of its own */
  stepsPerRun?: number;
}

/** A batch, whole or in parts. */
export type StepBatch = Feeds | readonly Feeds[];

export interface StepResult {
  readonly loss: number;
  readonly gradientNorm: number;
  readonly metrics: Record<string, Tensor>;
}

/** The scale of the loss that a run begins with. */
const SCALE = 2 ** 12;

interface StepFeeds {
  /** the parts of the batch */
  readonly list: readonly Feeds[];
  readonly scalars: Feeds;
}

/** Metrics of one of several steps. */
function rowOf({ shape, data }: Tensor, i: number, rows: number): Tensor {
  const width = data.length / rows;
  return f32((data as Float32Array).slice(i * width, (i + 1) * width), shape.slice(1));
}

function wholeOf([feeds, ...more]: readonly Feeds[]): Feeds {
  if (feeds === undefined || more.length > 0)
    throw new Error('this trainer takes a batch whole; create it with `parts` for several');
  return feeds;
}

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
  /** fewer from the run on for which the device had no memory */
  stepsPerRun: number;
  /** its program takes several steps, of which one may run */
  readonly #loops: boolean;
  #scale: number;

  private constructor(
    program: Program,
    update: Program | undefined,
    weights: Map<string, Tensor<'float32'>>,
    rules: ReadonlyMap<string, OptimizerRule>,
    metrics: readonly string[],
    half: boolean,
    stepsPerRun: number,
  ) {
    this.stepsPerRun = stepsPerRun;
    this.#loops = stepsPerRun > 1;
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
    stepsPerRun = 1,
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
    const update = parts ? await compile(changes, given) : undefined;
    const count = parts ? 1 : stepsPerRun;
    const changed = new Map(
      [...rules].flatMap(([name, { rule }]) => [
        [name, `w:${name}`] as const,
        ...slots[rule].map((slot) => [`${slot}:${name}`, `${slot}:${name}`] as const),
      ]),
    );
    const one = parts ? values : { ...values, ...changes };
    const program = await compile(
      count === 1 ? one : severalSteps(one, changed, { count, trained: (name) => initial.has(name) }),
      given,
    );
    return new Trainer(program, update, new Map(initial), rules, Object.keys(metrics), half, count);
  }

  /**
   * One optimizer step over a batch, or over the parts of one: their losses and metrics are added up.
   * @throws LossError when the loss or the gradient is not finite; weights and state then stay as they were
   */
  async run(batch: StepBatch, lr: number): Promise<StepResult> {
    return (await this.runSteps([{ batch, rate: lr }]))[0]!;
  }

  /**
   * Makes steps one after the other, at most `stepsPerRun`. It returns fewer where a step has to be repeated, or where the device has no memory for
   * several; the next call begins with the first one that is missing.
   * @throws LossError when the loss or the gradient of the first is not finite; weights and state then stay as they were
   */
  async runSteps(steps: readonly { readonly batch: StepBatch; readonly rate: number }[]): Promise<StepResult[]> {
    const t = this.step + 1;
    const state: Record<string, Tensor> = Object.fromEntries([...this.weights, ...this.#state]);
    const once = (): Promise<Record<string, Tensor>> => {
      const scales = { 'step.scale': f32([this.#scale], []), 'step.unscale': f32([1 / this.#scale], []) };
      const feeds = steps.map(({ batch, rate }, i): StepFeeds => {
        const list = Array.isArray(batch) ? (batch as readonly Feeds[]) : [batch as Feeds];
        return { list, scalars: { ...stepFeeds(this.#rules.values(), rate, t + i), ...scales } };
      });
      if (this.#loops) return this.#several(feeds, state);
      const [{ list, scalars }] = feeds as [StepFeeds];
      const own = { ...state, ...scalars };
      return this.#update === undefined
        ? this.#program.run({ ...wholeOf(list), ...own })
        : this.#inParts(this.#update, list, own);
    };
    const value = (result: Record<string, Tensor>, name: string, i = 0): number => (result[name]!.data as Float32Array)[i]!;
    let out: Record<string, Tensor>;
    try {
      out = await once();
    } catch (error) {
      if (!(error instanceof DeviceError && error.memory && steps.length > 1)) throw error;
      // The batches of the other steps take memory, too.
      this.stepsPerRun = 1;
      return this.runSteps(steps.slice(0, 1));
    }
    while (this.#scale > 1 && Number.isFinite(value(out, 'loss')) && !Number.isFinite(value(out, 'gradientNorm'))) {
      this.#scale /= 4;
      out = await once();
    }
    const ran = out.loss!.data.length;
    const results = Array.from({ length: ran }, (_, i): StepResult => {
      const metrics = this.#metrics.map((m): [string, Tensor] => [m, this.#loops ? rowOf(out[m]!, i, ran) : out[m]!]);
      return { loss: value(out, 'loss', i), gradientNorm: value(out, 'gradientNorm', i), metrics: Object.fromEntries(metrics) };
    });
    const good = results.filter(({ loss, gradientNorm }) => Number.isFinite(loss) && Number.isFinite(gradientNorm));
    if (good.length === 0) {
      const [{ loss, gradientNorm }] = results as [StepResult];
      throw new LossError(
        `step ${t}: the loss is ${loss} and the gradient norm ${gradientNorm}; weights of step ${this.step} are kept. Try a lower learning rate or --clip`,
      );
    }
    this.step += good.length;
    for (const name of this.weights.keys()) this.weights.set(name, out[`w:${name}`] as Tensor<'float32'>);
    for (const name of this.#state.keys()) this.#state.set(name, out[name] as Tensor<'float32'>);
    return good;
  }

  #several(steps: readonly StepFeeds[], state: Feeds): Promise<Record<string, Tensor>> {
    const feeds: Record<string, Tensor> = { ...state, turns: i64([steps.length], []) };
    steps.forEach(({ list, scalars }, i) => {
      for (const [name, t] of Object.entries({ ...wholeOf(list), ...scalars })) feeds[stepInput(i, name)] = t;
    });
    // Of steps that do not run.
    for (const [name, like] of this.#program.inputs) if ((stepOf(name) ?? 0) >= steps.length) feeds[name] = placeholder(like);
    return this.#program.run(feeds);
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
