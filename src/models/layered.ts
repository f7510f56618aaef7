/**
 * The decoder as one program per layer, for models whose weights are too large to be held more than once: the same program serves prompts, single
 * steps with a cache, and every part of the decoder below and above an edit. What a program holds of its weights it holds once.
 */

import { addDim } from '../graph/dim.ts';
import { f32, type Tensor } from '../graph/dtype.ts';
import { input, type Node, slice } from '../graph/index.ts';
import { Weights } from '../nn/weights.ts';
import type { Feeds, Program } from '../runtime/program.ts';
import { Sites } from './sites.ts';
import { MASKED, type Rewrite, type Segment, type Vlm } from './vlm.ts';

/** As `Vlm.run`; `past.{i}.key` and `past.{i}.value` among the feeds are keys and values of earlier tokens. */
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
    const own = [`layers.${i}.`, `new.past.${i}.`];
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

/**
 * One decoding step after another, with the names of generate.ts. The caches are kept here and grow in steps, so that a new token costs no copy of
 * all before it; positions that are not filled yet are masked.
 */
export function layeredStep(vlm: Vlm, rewrite: Rewrite | undefined): Pick<Program, 'run'> {
  const { layers } = vlm.decoder;
  const names = Array.from({ length: layers }, (_, i) => [`past.${i}.key`, `past.${i}.value`]).flat();
  const past: Record<string, Tensor<'float32'>> = {};
  let used: number | undefined;
  // Weight edits live on in decode steps; activation patches only where they say so.
  const lasting = rewrite && {
    ...rewrite,
    key: `${rewrite.key}|step`,
    patches: () => rewrite.steps?.() ?? (new Map() as ReturnType<Rewrite['patches']>),
  };
  return {
    run: async (feeds) => {
      const [b, , , seen] = feeds.bias!.shape as [number, number, number, number];
      used ??= seen - 1;
      for (const name of names) past[name] = withRoom(past[name] ?? feeds[name]!, used);
      const room = past[names[0]!]!.shape[2]!;
      const bias = new Float32Array(b * (room + 1)).fill(MASKED);
      for (let n = 0; n < b; n++) {
        const given = feeds.bias!.data as Float32Array;
        bias.set(given.subarray(n * seen, n * seen + used), n * (room + 1));
        bias[n * (room + 1) + room] = given[n * seen + used]!;
      }
      const segment = { from: 0, to: layers, image: false, outputs: ['logits', ...names.map((name) => `new.${name}`)] };
      const all = { ...feeds, ...past, bias: f32(bias, [b, 1, 1, room + 1]) };
      const { logits, ...fresh } = await runLayered(vlm, segment, all, lasting);
      for (const name of names) append(past[name]!, fresh[`new.${name}`]!, used);
      used++;
      return { logits: logits!, ...past };
    },
  };
}

/** Positions added to a cache at a time. */
const ROOM = 32;

/** A cache [b, h, p, k] with room for at least one more than `used` positions. */
function withRoom(cache: Tensor, used: number): Tensor<'float32'> {
  const [b, h, p, k] = cache.shape as [number, number, number, number];
  if (p > used) return cache as Tensor<'float32'>;
  const larger = new Float32Array(b * h * (p + ROOM) * k);
  for (let n = 0; n < b * h; n++)
    larger.set((cache.data as Float32Array).subarray(n * p * k, (n * p + used) * k), n * (p + ROOM) * k);
  return f32(larger, [b, h, p + ROOM, k]);
}

/** Writes what one position adds, [b, h, 1, k], into a cache. */
function append(cache: Tensor<'float32'>, fresh: Tensor, at: number): void {
  const [b, h, p, k] = cache.shape as [number, number, number, number];
  for (let n = 0; n < b * h; n++) cache.data.set((fresh.data as Float32Array).subarray(n * k, (n + 1) * k), (n * p + at) * k);
}

const unpatched = (rewrite: Rewrite): Rewrite => ({ ...rewrite, key: `${rewrite.key}|weights`, patches: () => new Map() });

/**
 * One layer with all its sites as outputs, and `new.past.{i}.key` and `.value`, those of the new positions alone; a run returns what is asked
 * for.
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
      build(vlm, i, weights, sites);
      const outputs = Object.fromEntries(sites.names().map((name) => [name, sites.get(name)]));
      for (const kind of ['key', 'value'])
        outputs[`new.past.${i}.${kind}`] = slice(sites.get(`layers.${i}.attn.${kind}`), 2, 'p', addDim('l', 'p'));
      return outputs;
    },
    'layered',
  );
}

function build(vlm: Vlm, i: number, weights: Weights, sites: Sites): void {
  const { decoder } = vlm;
  const { keyHeads: h, headWidth: k } = decoder;
  const past = { key: input('past.key', ['b', h, 'p', k]), value: input('past.value', ['b', h, 'p', k]) };
  const x: Node = input('hidden', ['b', 'l', decoder.hidden]);
  const positions = input('positions', ['b', 'l'], 'int64');
  const bias = input('bias', ['b', 1, 'l', 'l+p']);
  decoder.layer(i, x, { weights, sites, positions, bias, past: () => past });
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

function pastOf(vlm: Vlm, i: number, feeds: Feeds, x: Tensor): Feeds {
  const { keyHeads: h, headWidth: k } = vlm.decoder;
  const none = f32([], [x.shape[0]!, h, 0, k]);
  return { 'past.key': feeds[`past.${i}.key`] ?? none, 'past.value': feeds[`past.${i}.value`] ?? none };
}
