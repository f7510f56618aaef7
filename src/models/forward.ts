/**
 * The one forward of every model: a plan says which layers run over which part of the inputs, what earlier tokens left, what is rewritten and what is
 * read, and becomes a graph. Whole prompts, the parts that questions share, single layers, decoding steps and training objectives are plans.
 */

import { addDim, type Dim, mulDim, subDim } from '../graph/dim.ts';
import { concat, gather, input, type Node, pad, reshape, slice } from '../graph/index.ts';
import { Weights } from '../nn/weights.ts';
import type { Decoder, KeysAndValues, LayerContext } from './architecture.ts';
import { type Deep, deepInputs, entering } from './deep.ts';
import type { Rewrite } from './rewrite.ts';
import { biasInput } from './sight.ts';
import { Sites } from './sites.ts';
import { type Spans, spanInputs, writeVisual } from './spans.ts';

/** Keys and values of earlier tokens, given as inputs `{name}.{layer}.key`, `.value` [b, h, length, k]. */
export interface Cached {
  readonly name: 'past' | 'recent';
  readonly length: Dim;
  /** the input has these rows, of which `rowOf` [b] chooses one for each row of the batch */
  readonly rows?: Dim;
}

/** Which part of the model a program is, and over what. */
export interface Plan {
  /** layers [from, to) run; from 0 starts at the token ids, i at the input `hidden`, the output of layer i − 1 */
  readonly from: number;
  readonly to: number;
  /** sites to return; `logits`; `past.{i}.key`, `.value`: keys and values of all tokens so far; `recent.{i}`: of those since the prompt */
  readonly read: readonly string[];
  /** whether the program's inputs have pictures */
  readonly image: boolean;
  /** tokens that run; `l` when left out */
  readonly length?: Dim;
  /** columns up to the end of the pictures, where that is one number for all inputs (see `Vlm.prefixDim`) */
  readonly prefix?: Dim | undefined;
  readonly cache?: readonly Cached[];
  /** logits only at rows given by the input `rows`, places among [b * l] that come after the pictures */
  readonly rows?: boolean;
  /** the rewrite acts as on generated tokens */
  readonly step?: boolean;
  /** layer 0 starts at the input `hidden` too, the decoder's own input */
  readonly entered?: boolean;
}

/** States of the two parts of some inputs: up to the end of the pictures [p, P, d], and the words [b, l − P, d]. */
export interface SplitStates {
  readonly prefix: Node;
  readonly text: Node;
}

/** How the layers of two parts run. */
export interface SplitContext {
  weights: Weights;
  /** of the first part, where its rows have weights of their own */
  prefixWeights?: Weights;
  /** of the text part */
  sites: Sites;
  /** P */
  length: Dim;
  /** of the whole inputs: int64 [b, l] */
  positions: Node;
  /** of the whole inputs: [b, kinds, l, l] */
  bias: Node;
  /** of the whole inputs; visual tokens all stand in the first part */
  deep: Deep | undefined;
  /** of the first part: runs of positions for `attend` */
  blocks: readonly Dim[];
  /** rows of the first part -> rows of the text: [p, ...] -> [b, ...]; the identity when left out */
  spread?: (x: Node) => Node;
  /** rows of the inputs that the rows of the first part are, on an axis; all of them when left out */
  chosen?: (x: Node, axis: number) => Node;
}

/** Layers [from, to) over whole inputs. */
export function walk(decoder: Decoder, from: number, to: number, x: Node, context: LayerContext): Node {
  let h = x;
  for (let i = from; i < to; i++) {
    const bias = context.sites.change(`layers.${i}.attn.bias`, context.bias);
    h = decoder.layer(i, entering(i, h, context.deep), { ...context, bias });
  }
  return h;
}

/**
 * Layers [from, to) over two parts. The part up to the end of the pictures never sees what comes after it: inputs with the same pictures can share it,
 * and where only the text is read its last layer is left out by itself, since its keys and values are all that the text asks of it.
 */
export function walkSplit(decoder: Decoder, from: number, to: number, states: SplitStates, context: SplitContext): SplitStates {
  let x = states;
  for (let i = from; i < to; i++) x = splitLayer(decoder, i, x, context);
  return x;
}

/** One layer over both parts; its sites of keys and values [b, h, l, k] are of both. */
export function splitLayer(
  decoder: Decoder,
  index: number,
  { prefix, text }: SplitStates,
  context: SplitContext,
): SplitStates & { seen: Record<string, Node> } {
  const {
    weights,
    prefixWeights = weights,
    sites,
    length,
    positions,
    bias,
    blocks,
    deep,
    spread = (x) => x,
    chosen = (x) => x,
  } = context;
  const several = positions.rank === 3;
  const [batchAxis, columnAxis] = (several ? [1, 2] : [0, 1]) as [number, number];
  const l = positions.dim(-1);
  const before = new Sites();
  const added: Deep = (layer) => {
    const whole = deep?.(layer);
    return whole && slice(chosen(whole, 0), 1, 0, length);
  };
  const next = decoder.layer(index, entering(index, prefix, added), {
    weights: prefixWeights,
    sites: before,
    positions: slice(chosen(positions, batchAxis), columnAxis, 0, length),
    bias: slice(slice(chosen(bias, 0), 2, 0, length), 3, 0, length),
    blocks,
  });
  const [key, value] = ['key', 'value'].map((part) => `layers.${index}.attn.${part}`) as [string, string];
  const past = { key: spread(before.get(key)), value: spread(before.get(value)) };
  const own = decoder.layer(index, text, {
    weights,
    sites,
    positions: slice(positions, columnAxis, length, l),
    bias: slice(bias, 2, length, l),
    past: () => [past],
  });
  const seen = { [key]: concat([past.key, sites.get(key)], 2), [value]: concat([past.value, sites.get(value)], 2) };
  return { prefix: next, text: own, seen };
}

/** Both parts of whole states [b, l, d]. */
export function splitStates(x: Node, length: Dim): SplitStates {
  return { prefix: slice(x, 1, 0, length), text: slice(x, 1, length, x.dim(1)) };
}

/** The words' states in the place that they have in whole inputs, [b, l, d], for reading rows after the pictures. */
export const textInPlace = ({ text }: SplitStates, length: Dim): Node => pad(text, 1, length, 0);

/** Positions and biases of whole inputs as inputs of a program. `P` stands for a prefix whose length is not known before a run. */
export function placeInputs(
  decoder: Pick<Decoder, 'positionAxes' | 'sight'>,
  prefix: Dim | undefined,
  b: Dim = 'b',
  name = '',
  columns: Dim = 'l',
): { length: Dim; positions: Node; bias: Node } {
  const { positionAxes: axes = 1 } = decoder;
  const shape = (l: Dim): Dim[] => (axes === 1 ? [b, l] : [axes, b, l]);
  if (typeof prefix !== 'string') {
    const positions = input(`${name}positions`, shape(columns), 'int64');
    return { length: columns, positions, bias: biasInput(decoder, b, columns, [], name) };
  }
  const l = addDim(prefix, 'words');
  const parts = [
    input(`${name}positions.prefix`, shape(prefix), 'int64'),
    input(`${name}positions.text`, shape('words'), 'int64'),
  ];
  return { length: l, positions: concat(parts, axes === 1 ? 1 : 2), bias: biasInput(decoder, b, l, [], name) };
}

/** Names of keys and values of layers [from, to]. */
export const cacheNames = (kind: Cached['name'], from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => [`${kind}.${from + i}.key`, `${kind}.${from + i}.value`]).flat();

/** The site that holds what a name of the cache names: the layer's keys or values of its own tokens. */
export const siteOf = (name: string): string => name.replace(/^\w+\.(\d+)/, 'layers.$1.attn');

/** What a plan is built with. */
export interface Given {
  readonly decoder: Decoder;
  /** runs of the positions before a length, for `attend` */
  readonly runsOf: (length: Dim | undefined) => readonly number[];
  readonly rewrite?: Rewrite | undefined;
}

/** Visual tokens of the inputs in the place of the embeddings of the tokens that stand for them. */
export function mergeVisual(words: Node, spans: Spans, width: number): Node {
  return writeVisual(words, input('visual', [words.dim(0), 'v', width]), spans);
}

/**
 * The graph of a plan. Inputs, as far as it reads them: ids, positions [b, l], bias [b, 1, l, earlier + l] or reach [b, 2, earlier + l], visual [b, v, d] and those of
 * `spanInputs` and `deepInputs`;
 * hidden [b, l, d]; rows [r]; what `cache` names; the inputs of the rewrite.
 */
export function forward({ decoder, runsOf, rewrite }: Given, plan: Plan): Record<string, Node> {
  const { from, to, read, image, rows = false, cache = [], step = false, entered = false } = plan;
  const d = decoder.hidden;
  const last = decoder.layers - 1;
  const patches = step ? rewrite?.steps?.() : rewrite?.patches(image);
  // Rows to read logits at come after the pictures, so the last layer need not be finished for what is before.
  const split = rows && image && plan.prefix !== undefined && from <= last && to > last && readsText(last, read, patches);
  const whole = cache.length === 0 && plan.length === undefined;
  const place = whole ? placeInputs(decoder, plan.prefix) : partInputs(decoder, plan);
  const { length, positions, bias } = place;
  const weights = new Weights(rewrite?.replace);
  const spans = spanInputs('b', length);
  const sites = new Sites(patches, image ? spans : undefined);
  let x: Node;
  if (entered) x = input('hidden', ['b', length, d]);
  else if (from === 0) {
    const words = decoder.embed(input('ids', ['b', length], 'int64'), weights);
    const embeddings = sites.site('embeddings', image ? mergeVisual(words, spans, d) : words);
    x = sites.site('decoder.in', decoder.enter(embeddings, positions, weights));
  } else {
    // The site of the layer before stands at the entry, so that an edit there acts on a shared, unedited prefix.
    x = sites.site(`layers.${from - 1}.out`, input('hidden', ['b', length, d]));
  }
  const earlier = cache.map((one) => cachedInputs(decoder, one));
  const runs = runsOf(image && whole && typeof plan.prefix === 'number' ? plan.prefix : plan.length);
  const blocks = runs.length === 0 ? undefined : whole ? [...runs, length] : runs;
  const deep = image ? deepInputs(decoder, 'b', length) : undefined;
  const past = cache.length === 0 ? {} : { past: (i: number) => earlier.map((of) => of(i)) };
  x = walk(decoder, from, split ? last : to, x, {
    weights,
    sites,
    positions,
    bias,
    deep,
    ...(blocks ? { blocks } : {}),
    ...past,
  });
  if (split) {
    const end = plan.prefix!;
    const parts = splitLayer(decoder, last, splitStates(x, end), {
      ...{ weights, sites: new Sites(), positions, bias, deep },
      length: end,
      blocks: runsOf(end),
    });
    for (const [name, value] of Object.entries(parts.seen)) sites.site(name, value);
    x = textInPlace(parts, end);
  }
  const kept = (name: string): Node => {
    const [, kind, layer, part] = /^(past|recent)\.(\d+)\.(key|value)$/.exec(name)!;
    const own = sites.get(`layers.${layer}.attn.${part}`);
    const before = cache.flatMap((one, n) =>
      kind === 'past' || one.name === kind ? [earlier[n]!(Number(layer))[part as 'key']] : [],
    );
    return before.length === 0 ? own : concat([...before, own], 2);
  };
  const result: Record<string, Node> = {};
  for (const name of read) {
    if (name === 'logits') {
      result.logits = decoder.head(
        // Chosen rows are words, to which nothing is added.
        rows ? gather(reshape(x, [mulDim('b', length), d]), input('rows', ['r'], 'int64')) : entering(decoder.layers, x, deep),
        weights,
      );
    } else result[name] = /^(past|recent)\./.test(name) ? kept(name) : sites.get(name);
  }
  return result;
}

/** Positions and biases of a part of the inputs, behind what is cached. */
function partInputs(decoder: Decoder, { length = 'l', cache = [] }: Plan): { length: Dim; positions: Node; bias: Node } {
  const { positionAxes: axes = 1 } = decoder;
  const earlier = cache.map((one) => one.length);
  return {
    length,
    positions: input('positions', axes === 1 ? ['b', length] : [axes, 'b', length], 'int64'),
    bias: biasInput(decoder, 'b', length, earlier),
  };
}

/** The inputs of cached keys and values, by layer. */
function cachedInputs({ keyHeads: h, headWidth: k }: Decoder, { name, length, rows }: Cached): (layer: number) => KeysAndValues {
  const known = new Map<number, KeysAndValues>();
  return (layer) => {
    let found = known.get(layer);
    if (found === undefined) {
      const of = (part: string): Node => {
        const given = input(`${name}.${layer}.${part}`, [rows ?? 'b', h, length, k]);
        return rows === undefined ? given : gather(given, input('rowOf', ['b'], 'int64'));
      };
      found = { key: of('key'), value: of('value') };
      known.set(layer, found);
    }
    return found;
  };
}

/** Whether of a layer only its keys, its values and the logits after the pictures are asked for, and no rewrite acts within it. */
function readsText(layer: number, read: readonly string[], patches: ReadonlyMap<string, unknown> | undefined): boolean {
  const within = (site: string): boolean => site.startsWith(`layers.${layer}.`);
  const unread = read.filter(within).every((site) => /\.attn\.(key|value)$/.test(site));
  return read.includes('logits') && unread && ![...(patches?.keys() ?? [])].some(within);
}

/** A dimension without the prefix. */
export const behindPrefix = (length: Dim, prefix: Dim): Dim => subDim(length, prefix);
