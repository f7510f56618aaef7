/**
 * The decoder as one program per layer, for models whose weights are too large to be held more than once: the same program serves prompts, single
 * steps with a cache, and every part of the decoder below and above an edit. What a program holds of its weights it holds once.
 */

import { f32, type Tensor } from '../graph/dtype.ts';
import { nameOf, parameterOp, topological } from '../graph/index.ts';
import type { Feeds, Program } from '../runtime/program.ts';
import { type Cached, cacheNames, forward, type Plan } from './forward.ts';
import type { Rewrite } from './rewrite.ts';
import { sitesOfLayer } from './site-names.ts';
import type { Vlm } from './vlm.ts';

/** Keys and values of earlier tokens, which every layer's program takes; empty where a prompt is read. */
const cache: readonly Cached[] = [
  { name: 'past', length: 'p' },
  { name: 'recent', length: 'r' },
];

/** As `Vlm.run`; `past.{i}` and `recent.{i}` among the feeds are keys and values of earlier tokens, as in generate.ts. */
export async function runLayered(
  vlm: Vlm,
  { from, to, image, read, rows = false }: Plan,
  feeds: Feeds,
  rewrite?: Rewrite,
): Promise<Record<string, Tensor>> {
  const { layers } = vlm.decoder;
  const patched = new Set(rewrite?.patches(image).keys());
  const wanted = new Set(read);
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
    const program = await vlm.planned({ from: at, to: at, image, read: names, rows }, edit);
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
    const values = await program.run({ ...feeds, ...pastOf(vlm, i, feeds, x), ...rewrite?.feeds, hidden: x }, [
      ...within,
      out(i),
    ]);
    x = await patch(i, values[out(i)]!);
    keep({ ...values, [out(i)]: x });
  }
  if (wanted.has('logits')) {
    if (to < layers) throw new Error(`the head reads the output of layer ${layers - 1}, but only layers before ${to} run`);
    const edited = rewrite !== undefined && rewrite.replace.size > 0 ? unpatched(rewrite) : undefined;
    keep(await entry(layers, ['logits'], x, edited));
  }
  const missing = read.filter((name) => found[name] === undefined);
  if (missing.length > 0) throw new Error(`there is no site ${missing.join(', ')} in layers ${from} to ${to - 1}`);
  return found;
}

/** One decoding step, with the names of generate.ts. */
export function layeredStep(vlm: Vlm, rewrite: Rewrite | undefined): Pick<Program, 'run'> {
  const { layers } = vlm.decoder;
  const read = ['logits', ...cacheNames('recent', 0, layers - 1)];
  // Weight edits live on in decode steps; activation patches only where they say so.
  const lasting = rewrite && {
    ...rewrite,
    key: `${rewrite.key}|step`,
    patches: () => rewrite.steps?.() ?? (new Map() as ReturnType<Rewrite['patches']>),
  };
  return { run: (feeds) => runLayered(vlm, { from: 0, to: layers, image: false, read }, feeds, lasting) };
}

const unpatched = (rewrite: Rewrite): Rewrite => ({ ...rewrite, key: `${rewrite.key}|weights`, patches: () => new Map() });

/** One layer with all its sites as outputs, and `recent.{i}` with its own tokens; a run returns what is asked for. */
function layerProgram(vlm: Vlm, i: number, image: boolean, rewrite: Rewrite | undefined): Promise<Program> {
  const plan: Plan = {
    ...{ from: i, to: i + 1, image, cache, entered: true },
    read: [...sitesOfLayer(vlm.decoder, i), ...cacheNames('recent', i, i)],
  };
  const own = (site: string): boolean => site.startsWith(`layers.${i}.`) && site !== `layers.${i}.out`;
  const within = (of: Rewrite['patches']) => (some: boolean) => new Map([...of(some)].filter(([site]) => own(site)));
  const acts =
    rewrite !== undefined &&
    (within(rewrite.patches)(image).size > 0 || weightsOfLayer(vlm, i).some((name) => rewrite.replace.has(name)));
  return vlm.planned(plan, acts ? { ...rewrite, key: `${rewrite.key}|inside`, patches: within(rewrite.patches) } : undefined);
}

const weightsOf = new WeakMap<Vlm, Map<number, readonly string[]>>();

function weightsOfLayer(vlm: Vlm, i: number): readonly string[] {
  const known = weightsOf.get(vlm) ?? new Map<number, readonly string[]>();
  weightsOf.set(vlm, known);
  let names = known.get(i);
  if (names === undefined) {
    const graph = forward(vlm, { from: i, to: i + 1, image: false, read: [`layers.${i}.out`] });
    names = topological(Object.values(graph))
      .filter((node) => node.op === parameterOp)
      .map(nameOf);
    known.set(i, names);
  }
  return names;
}

/** Earlier keys and values that a layer is given; none where a prompt is read. */
function pastOf(vlm: Vlm, i: number, feeds: Feeds, x: Tensor): Feeds {
  const { keyHeads: h, headWidth: k } = vlm.decoder;
  const none = f32([], [x.shape[0]!, h, 0, k]);
  return Object.fromEntries(
    cache.flatMap(({ name }) => ['key', 'value'].map((part) => [`${name}.${i}.${part}`, feeds[`${name}.${i}.${part}`] ?? none])),
  );
}
