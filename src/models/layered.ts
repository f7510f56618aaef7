/**
 * The decoder as one program per layer, for models whose weights are too large to be held more than once: the same program serves prompts, single
 * steps with a cache, and every part of the decoder below and above an edit. What a program holds of its weights it holds once.
 */

import { f32, type Tensor } from '../graph/dtype.ts';
import { input, type Node } from '../graph/index.ts';
import { Weights } from '../nn/weights.ts';
import type { Feeds, Program } from '../runtime/program.ts';
import type { KeysAndValues } from './architecture.ts';
import { cacheNames, grown } from './cache.ts';
import { Sites } from './sites.ts';
import type { Rewrite, Segment, Vlm } from './vlm.ts';

/** As `Vlm.run`; `past.{i}` and `recent.{i}` among the feeds are keys and values of earlier tokens, as in generate.ts. */
export async function runLayered(
  vlm: Vlm,
  { from, to, image, outputs, rows = false }: Segment,
  feeds: Feeds,
  rewrite?: Rewrite,
): Promise<Record<string, Tensor>> {
  const { layers } = vlm.decoder;
  const patched = new Set(rewrite?.patches(image).keys());
  const wanted = new Set(outputs);
  const found: Record<string, Tensor> = {};
  const keep = (values: Record<string, Tensor>): void => {
    for (const [name, value] of Object.entries(values)) if (wanted.has(name)) found[name] = value;
  };
  /** Sites at the entry of layer `at`: the embeddings, or what the layer before gave, as a patch makes it. */
  const entry = async (
    at: number,
    names: readonly string[],
    hidden?: Tensor,
    edit?: Rewrite,
  ): Promise<Record<string, Tensor>> => {
    const program = await vlm.segment({ from: at, to: at, image, outputs: names, rows }, edit);
    return program.run({ ...feeds, ...edit?.feeds, ...(hidden === undefined ? {} : { hidden }) });
  };
  const out = (i: number): string => `layers.${i}.out`;
  const patch = async (i: number, x: Tensor): Promise<Tensor> =>
    patched.has(out(i)) ? (await entry(i + 1, [out(i)], x, rewrite))[out(i)]! : x;

  let x: Tensor;
  if (from === 0) {
    const first = ['embeddings', 'decoder.in'];
    const edited = rewrite !== undefined && (rewrite.replace.size > 0 || first.some((name) => patched.has(name)));
    const values = await entry(
      0,
      ['decoder.in', ...(wanted.has('embeddings') ? ['embeddings'] : [])],
      undefined,
      edited ? rewrite : undefined,
    );
    keep(values);
    x = values['decoder.in']!;
  } else {
    x = await patch(from - 1, feeds.hidden!);
    keep({ [out(from - 1)]: x });
  }
  for (let i = from; i < to; i++) {
    const own = [`layers.${i}.`, `recent.${i}.`];
    const within = [...wanted].filter((name) => own.some((start) => name.startsWith(start)) && name !== out(i));
    const program = await layerProgram(vlm, i, image, rewrite);
    const values = await program.run(
      { ...pastOf(vlm, i, feeds, x), ...rewrite?.feeds, positions: feeds.positions!, bias: feeds.bias!, hidden: x },
      [...within, out(i)],
    );
    x = await patch(i, values[out(i)]!);
    keep({ ...values, [out(i)]: x });
  }
  if (wanted.has('logits')) {
    if (to < layers) throw new Error(`the head reads the output of layer ${layers - 1}, but only layers before ${to} run`);
    const edited = rewrite !== undefined && rewrite.replace.size > 0 ? unpatched(rewrite) : undefined;
    keep(await entry(layers, ['logits'], x, edited));
  }
  const missing = outputs.filter((name) => found[name] === undefined);
  if (missing.length > 0) throw new Error(`there is no site ${missing.join(', ')} in layers ${from} to ${to - 1}`);
  return found;
}

/** One decoding step, with the names of generate.ts. */
export function layeredStep(vlm: Vlm, rewrite: Rewrite | undefined): Pick<Program, 'run'> {
  const { layers } = vlm.decoder;
  const outputs = ['logits', ...cacheNames('recent', 0, layers - 1)];
  // Weight edits live on in decode steps; activation patches only where they say so.
  const lasting = rewrite && {
    ...rewrite,
    key: `${rewrite.key}|step`,
    patches: () => rewrite.steps?.() ?? (new Map() as ReturnType<Rewrite['patches']>),
  };
  return { run: (feeds) => runLayered(vlm, { from: 0, to: layers, image: false, outputs }, feeds, lasting) };
}

const unpatched = (rewrite: Rewrite): Rewrite => ({ ...rewrite, key: `${rewrite.key}|weights`, patches: () => new Map() });

/**
 * One layer with all its sites as outputs, and `recent.{i}` with its own tokens; a run returns what is asked for.
 */
function layerProgram(vlm: Vlm, i: number, image: boolean, rewrite: Rewrite | undefined): Promise<Program> {
  const own = (site: string): boolean => site.startsWith(`layers.${i}.`) && site !== `layers.${i}.out`;
  const patches = [...(rewrite?.patches(image) ?? [])].filter(([site]) => own(site));
  const replaced = rewrite !== undefined && weightsOfLayer(vlm, i).some((name) => rewrite.replace.has(name));
  const key = patches.length > 0 || replaced ? `${rewrite!.key}|${image}` : '';
  return vlm.program(
    `layer|${i}|${key}`,
    () => {
      const weights = new Weights(replaced ? rewrite!.replace : undefined);
      const sites = new Sites(new Map(patches));
      const recent = build(vlm, i, weights, sites);
      return { ...Object.fromEntries(sites.names().map((name) => [name, sites.get(name)])), ...grown(recent, sites, i) };
    },
    'layered',
  );
}

/** Builds a layer; returns the input of recent keys and values. */
function build(vlm: Vlm, i: number, weights: Weights, sites: Sites): KeysAndValues {
  const { decoder } = vlm;
  const { keyHeads: h, headWidth: k } = decoder;
  const run = (name: string, length: string): KeysAndValues => ({
    key: input(`${name}.key`, ['b', h, length, k]),
    value: input(`${name}.value`, ['b', h, length, k]),
  });
  const recent = run('recent', 'r');
  const x: Node = input('hidden', ['b', 'l', decoder.hidden]);
  const positions = input('positions', ['b', 'l'], 'int64');
  const bias = input('bias', ['b', 1, 'l', 'l+p+r']);
  const past = [run('past', 'p'), recent];
  decoder.layer(i, x, { weights, sites, positions, bias, past: () => past });
  return recent;
}

const read = new WeakMap<Vlm, Map<number, readonly string[]>>();

function weightsOfLayer(vlm: Vlm, i: number): readonly string[] {
  const known = read.get(vlm) ?? new Map<number, readonly string[]>();
  read.set(vlm, known);
  let names = known.get(i);
  if (names === undefined) {
    const weights = new Weights();
    build(vlm, i, weights, new Sites());
    names = [...weights.entries().keys()];
    known.set(i, names);
  }
  return names;
}

/** Earlier keys and values that a layer is given; none where a prompt is read. */
function pastOf(vlm: Vlm, i: number, feeds: Feeds, x: Tensor): Feeds {
  const { keyHeads: h, headWidth: k } = vlm.decoder;
  const none = f32([], [x.shape[0]!, h, 0, k]);
  const of = (name: string): Feeds => ({
    [`${name}.key`]: feeds[`${name}.${i}.key`] ?? none,
    [`${name}.value`]: feeds[`${name}.${i}.value`] ?? none,
  });
  return { ...of('past'), ...of('recent') };
}
