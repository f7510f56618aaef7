/**
 * Several edits of VEAD at once, one after the other: each edit's adapter reads the visual tokens that the one before wrote (Eq. 14-16 repeated).
 * What the adapters make of a picture does not depend on the words behind it, so every picture's visual tokens at l_e go through all of them once,
 * however many edits there are, and queries read the result: time is pictures × edits, and no program grows with the edits.
 */

import { f32, gather, i64, input, type Node, type Tensor } from '../../graph/index.ts';
import { type Asked, pictureCount } from '../../input/segments.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput } from '../../models/answer.ts';
import { type BatchShape, batchShape, stackPadded } from '../../models/batch.ts';
import { chainRewrites, defineRewrite, type Rewrite } from '../../models/rewrite.ts';
import { type Sequence, visualPlaces } from '../../models/sequence.ts';
import { prefixKey, type SharedStates, sharedStates } from '../../models/shared-states.ts';
import type { Patch } from '../../models/sites.ts';
import { writeVisual } from '../../models/spans.ts';
import type { Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import type { Edit } from '../editor.ts';
import { type AdapterParts, type AdapterShape, adapterShapes, visualEditAdapter } from './adapter.ts';
import { adapterOf, veadRewrite } from './rewrite.ts';

/** Pictures that go through the adapters together. */
const PICTURES = 64;

/** The model under all edits, in their order. */
export function chained(vlm: Vlm, edits: readonly Edit[]): AnsweringModel {
  const states = sharedStates(vlm, adapterOf(edits[0]!).layer);
  // Large models keep no states: the chain is part of the program.
  const pictures = states && new EditedPictures(states, edits);
  const rows = async (queries: readonly Asked[]): Promise<RewriteRows> => pictures?.rewriteRows(queries) ?? chainRows(edits);
  return {
    answerTargets: async (queries) => answerTargets(vlm, queries, await rows(queries)),
    generate: async (queries, options) => generateAll(vlm, queries, options, await rows(queries)),
    read: async (input) => readInput(vlm, input, await rows([input])),
  };
}

/** Rewrites that hold all adapters. */
function chainRows(edits: readonly Edit[]): RewriteRows {
  return (rows, batch: BatchShape) =>
    batch.image
      ? chainRewrites(
          edits.map((edit, i) =>
            veadRewrite(
              rows.map(() => edit),
              `${i}`,
            ),
          ),
        )
      : undefined;
}

/** Puts edited visual tokens in the place of the model's own after a layer. */
const edited = defineRewrite(({ layer, d }: { layer: number; d: number }) => {
  const patch: Patch = (x: Node, spans) => writeVisual(x, input('vead.edited', [x.dim(0), 'v', d]), spans!);
  return { patches: (image) => new Map(image ? [[`layers.${layer}.out`, patch]] : []) };
});

/** One adapter over the visual tokens of some inputs. */
function adapterGraph(_: Vlm, shape: AdapterShape, parts: AdapterParts): Record<string, Node> {
  const { hidden: d } = shape;
  const w = new Weights();
  for (const [name, dims] of adapterShapes(shape)) w.bind(name, input(name, dims));
  const given = {
    signal: input('signal', [1, 'n', d]),
    bias: input('bias', [1, 'n']),
    ends: input('ends', [1], 'int64'),
  };
  const rowOf = input('rows', ['p'], 'int64');
  const { output } = visualEditAdapter(w, shape, input('visual', ['p', 'v', d]), given, parts, (x) => gather(x, rowOf));
  return { output };
}

class EditedPictures {
  /** by what stands up to the end of an input's pictures */
  readonly #known = new Map<string, Tensor<'float32'>>();

  constructor(
    readonly states: SharedStates,
    readonly edits: readonly Edit[],
  ) {}

  /** Puts the edited visual tokens in the place of the model's own, for the rows of these queries. */
  async rewriteRows(queries: readonly Asked[]): Promise<RewriteRows> {
    const { vlm, layer } = this.states;
    const laid = queries.map((query) => (pictureCount(query) > 0 ? vlm.layout(query) : undefined));
    const asked = laid.filter((one) => one !== undefined);
    const missing = [...new Map(asked.map((one) => [prefixKey(one), one]))].filter(([key]) => !this.#known.has(key));
    for (let at = 0; at < missing.length; at += PICTURES)
      await this.#edit(missing.slice(at, at + PICTURES).map(([, sequence]) => sequence));
    const { edits } = this;
    const rewrite = (rows: readonly number[], batch: BatchShape): Rewrite | undefined =>
      batch.image
        ? edited(
            { layer, d: vlm.decoder.hidden },
            { 'vead.edited': stackPadded(rows.map((row) => this.#known.get(prefixKey(laid[row]!))!)) },
          )
        : undefined;
    return Object.assign(rewrite, { afterLayer: { layer, editOf: () => edits } });
  }

  /** Takes pictures through all adapters. */
  async #edit(sequences: readonly Sequence[]): Promise<void> {
    const { vlm } = this.states;
    const d = vlm.decoder.hidden;
    const hidden = await this.states.hidden(batchShape(sequences));
    const tokens = sequences.map((sequence, n) => {
      const places = visualPlaces(sequence);
      const own = new Float32Array(places.length * d);
      places.forEach((place, i) => {
        own.set(hidden[n]!.subarray(place * d, (place + 1) * d), i * d);
      });
      return f32(own, [places.length, d]);
    });
    let visual = stackPadded(tokens);
    const rows = i64(new Array<number>(sequences.length).fill(0), [sequences.length]);
    for (const edit of this.edits) {
      const { shape, parts, weights } = adapterOf(edit);
      const program = await vlm.program(adapterGraph, shape, parts);
      const signal = edit.tensors.get('signal')!;
      const n = signal.shape[0]!;
      const out = await program.run({
        visual,
        rows,
        signal: { ...signal, shape: [1, n, d] },
        bias: f32(new Float32Array(n), [1, n]),
        ends: i64([edit.settings.promptEnd as number], [1]),
        ...Object.fromEntries(weights),
      });
      visual = out.output as Tensor<'float32'>;
    }
    const most = visual.shape[1]!;
    sequences.forEach((sequence, i) => {
      const count = tokens[i]!.shape[0]!;
      const own = visual.data.slice(i * most * d, (i * most + count) * d);
      this.#known.set(prefixKey(sequence), f32(own, [count, d]));
    });
  }
}
