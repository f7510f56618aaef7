/**
 * Edits of weights as data: `delta.{weight}` holds a change as it is, `left.{weight}` [out, r] and `right.{weight}` [r, in] hold one of low rank
 * as its factors. The changes are inputs of the run, so one compiled program serves every edit of the same weights.
 */

import { add, f32, input, matmul, type Node, type Tensor } from '../../graph/index.ts';
import { type AnsweringModel, answerTargets, generateAll, readInput } from '../../models/answer.ts';
import { forRows } from '../../models/generate.ts';
import { defineRewrite, type Rewrite } from '../../models/rewrite.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { LowRank } from '../../nn/weights.ts';
import { checkEdits, type Edit, type EditRequest, type EditSequence } from '../editor.ts';
import type { Forms, Shape } from '../forms.ts';
import type { NamedWeight } from './chosen-weights.ts';

export type Deltas = ReadonlyMap<string, Tensor<'float32'>>;

const DENSE = 'delta.';
const LEFT = 'left.';
const RIGHT = 'right.';

const minus = (a: Tensor<'float32'>, b: Tensor<'float32'>): Tensor<'float32'> =>
  f32(
    a.data.map((x, i) => x - b.data[i]!),
    a.shape,
  );

/** Tensors of an edit that changes weights from `before` to `after`. */
export function denseTensors(before: Deltas, after: Deltas): Map<string, Tensor<'float32'>> {
  return new Map([...before].map(([name, w]) => [DENSE + name, minus(after.get(name)!, w)]));
}

/** Tensors of an edit that adds left × right to weights, from a program's outputs `left:{name}` [1, out, r] and `right:{name}` [1, r, in]. */
export function lowRankTensors(
  weights: readonly NamedWeight[],
  out: Readonly<Record<string, Tensor>>,
): Map<string, Tensor<'float32'>> {
  const single = (t: Tensor): Tensor<'float32'> => f32(t.data as Float32Array, t.shape.slice(1));
  return new Map(
    weights.flatMap(({ name }) => [
      [LEFT + name, single(out[`left:${name}`]!)] as const,
      [RIGHT + name, single(out[`right:${name}`]!)] as const,
    ]),
  );
}

/** The outputs that `lowRankTensors` reads. */
export function lowRankOutputs(changes: ReadonlyMap<string, LowRank>): Record<string, Node> {
  return Object.fromEntries(
    [...changes].flatMap(([name, { left, right }]) => [[`left:${name}`, left] as const, [`right:${name}`, right] as const]),
  );
}

/** The weight that a tensor of an edit is the whole change of. */
export const denseChange = (name: string): string | undefined => (name.startsWith(DENSE) ? name.slice(DENSE.length) : undefined);

/** The weight that a tensor of an edit is the left factor of, with the right one. */
export function lowRankChange(name: string, tensors: Edit['tensors']): { weight: string; right: Tensor<'float32'> } | undefined {
  if (!name.startsWith(LEFT)) return undefined;
  const weight = name.slice(LEFT.length);
  return { weight, right: tensors.get(RIGHT + weight)! };
}

/** The sum of the edits' changes, by weight, and of changes `before` them. */
export async function sumDeltas(vlm: Vlm, edits: readonly Pick<Edit, 'tensors'>[], before: Deltas = new Map()): Promise<Deltas> {
  const total = new Map(before);
  const put = (name: string, t: Tensor<'float32'>): void => {
    const before = total.get(name);
    total.set(
      name,
      before === undefined
        ? t
        : f32(
            before.data.map((x, i) => x + t.data[i]!),
            t.shape,
          ),
    );
  };
  for (const { tensors } of edits) {
    for (const [name, t] of tensors) {
      const whole = denseChange(name);
      if (whole !== undefined) put(whole, t);
      const low = lowRankChange(name, tensors);
      if (low !== undefined) put(low.weight, await product(vlm, t, low.right));
    }
  }
  return total;
}

const productGraph = (): Record<string, Node> => ({ y: matmul(input('left', ['o', 'r']), input('right', ['r', 'i'])) });

export async function product(vlm: Vlm, left: Tensor<'float32'>, right: Tensor<'float32'>): Promise<Tensor<'float32'>> {
  return (await (await vlm.program(productGraph)).run({ left, right })).y as Tensor<'float32'>;
}

const addition = defineRewrite((names: readonly string[]) => ({
  replace: new Map(names.map((name) => [name, (w: Node) => add(w, input(DENSE + name, w.shape))])),
}));

/** The rewrite that adds changes, which are inputs of the run, to weights. */
export const addDeltas = (deltas: Deltas): Rewrite =>
  addition([...deltas.keys()], Object.fromEntries([...deltas].map(([name, t]) => [DENSE + name, t])));

/**
 * Answers queries in groups: those under one and the same edit together. With one edit all are; with several, query i is under edit i.
 * @param modelOf the model under one edit
 */
export function underOwnEdits(
  edits: readonly Edit[],
  modelOf: (edit: Edit) => Promise<AnsweringModel> | AnsweringModel,
): AnsweringModel {
  const inGroups = async <Q, A>(
    queries: readonly Q[],
    ask: (model: AnsweringModel, group: Q[], rows: readonly number[]) => Promise<A[]>,
  ): Promise<A[]> => {
    if (edits.length > 1 && edits.length !== queries.length)
      throw new Error(`${edits.length} edits for ${queries.length} queries: give one edit, or one for each query`);
    const groups = new Map<Edit, number[]>();
    queries.forEach((_, i) => {
      const edit = edits.length === 1 ? edits[0]! : edits[i]!;
      groups.set(edit, [...(groups.get(edit) ?? []), i]);
    });
    const out = new Array<A>(queries.length);
    for (const [edit, rows] of groups) {
      const answers = await ask(
        await modelOf(edit),
        rows.map((i) => queries[i]!),
        rows,
      );
      rows.forEach((i, n) => {
        out[i] = answers[n]!;
      });
    }
    return out;
  };
  return {
    answerTargets: (queries) => inGroups(queries, (model, group) => model.answerTargets(group)),
    generate: (queries, options = {}) => inGroups(queries, (model, group, rows) => model.generate(group, forRows(options, rows))),
    read: async (input) => {
      if (edits.length > 1) throw new Error(`an input is read under one edit, not under ${edits.length}`);
      return (await modelOf(edits[0]!)).read!(input);
    },
  };
}

/** `Editor.sequence` of editors that go on tuning the weights that the edit before left. @param start the unedited weights */
export function tunedOn(
  vlm: Vlm,
  earlier: readonly Edit[],
  start: () => Promise<Deltas>,
  tune: (request: EditRequest, before: Deltas) => Promise<{ edit: Edit; after: Deltas }>,
): EditSequence {
  let before: Deltas | undefined;
  return async (request) => {
    const { edit, after } = await tune(request, before ?? (await sumDeltas(vlm, earlier, await start())));
    before = after;
    return edit;
  };
}

/** `Editor.sequence` of editors whose next edit is read off the changed weights. */
export function sequenceOfDeltas(
  vlm: Vlm,
  earlier: readonly Edit[],
  next: (request: EditRequest, earlier: Deltas) => Promise<Edit>,
): EditSequence {
  let before: Deltas | undefined;
  return async (request) => {
    before ??= await sumDeltas(vlm, earlier);
    const edit = await next(request, before);
    before = await sumDeltas(vlm, [edit], before);
    return edit;
  };
}

/** The model with changed decoder weights. */
function changed(vlm: Vlm, deltas: Deltas): AnsweringModel {
  const rewrite = addDeltas(deltas);
  return {
    answerTargets: (queries) => answerTargets(vlm, queries, () => rewrite),
    generate: (queries, options) => generateAll(vlm, queries, options, () => rewrite),
    read: (input) => readInput(vlm, input, () => rewrite),
  };
}

/** Tensors of edits that `denseTensors` makes of these weights. */
export const denseShapes = (weights: readonly NamedWeight[]): [string, Shape][] =>
  weights.map(({ name, shape }) => [DENSE + name, shape]);

/** Tensors of edits that `lowRankTensors` makes; each has a rank of its own. */
export const lowRankShapes = (weights: readonly NamedWeight[]): [string, Shape][] =>
  weights.flatMap(({ name, shape }): [string, Shape][] => [
    [LEFT + name, [shape[0]!, `rank of ${name}`]],
    [RIGHT + name, [`rank of ${name}`, shape[1]!]],
  ]);

type SumOf = (vlm: Vlm, edits: readonly Edit[]) => Promise<Deltas>;

/** `Editor.with` of editors that change decoder weights. @param forms of the editor @param sumOf the changes of edits, added up */
export function withDeltas(
  editor: string,
  vlm: Vlm,
  edits: readonly Edit[],
  forms?: Forms,
  sumOf: SumOf = sumDeltas,
): AnsweringModel {
  checkEdits(editor, vlm, edits, forms);
  return underOwnEdits(edits, async (edit) => changed(vlm, await sumOf(vlm, [edit])));
}

/** `Editor.chain` of editors that change decoder weights: the changes add up. */
export function chainDeltas(
  editor: string,
  vlm: Vlm,
  edits: readonly Edit[],
  forms?: Forms,
  sumOf: SumOf = sumDeltas,
): AnsweringModel {
  checkEdits(editor, vlm, edits, forms);
  return whenAsked(async () => changed(vlm, await sumOf(vlm, edits)));
}

/** A model that is made when it is first asked. */
export function whenAsked(make: () => Promise<AnsweringModel>): AnsweringModel {
  let made: Promise<AnsweringModel> | undefined;
  const model = (): Promise<AnsweringModel> => {
    made ??= make();
    return made;
  };
  return {
    answerTargets: async (queries) => (await model()).answerTargets(queries),
    generate: async (queries, options) => (await model()).generate(queries, options),
    read: async (input) => (await model()).read!(input),
  };
}
