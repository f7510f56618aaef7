/**
 * Several edits of VEAD at once, one after the other: each edit's adapter reads the visual tokens that the one before wrote (Eq. 14-16 repeated).
 * What the adapters make of a picture does not depend on the words behind it, so every picture's visual tokens at l_e go through all of them once,
 * however many edits there are, and queries read the result: time is pictures × edits, and no program grows with the edits.
 */

import { concat, f32, gather, i64, input, type Node, slice, type Tensor } from '../../graph/index.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput } from '../../models/answer.ts';
import { chainRewrites } from '../../models/rewrite.ts';
import { type SharedStates, sharedStates } from '../../models/shared-states.ts';
import type { Patch } from '../../models/sites.ts';
import { type BatchShape, type Rewrite, type RgbImage, stack, type Vlm } from '../../models/vlm.ts';
import { Weights } from '../../nn/weights.ts';
import type { Edit } from '../editor.ts';
import { adapterShapes, visualEditAdapter } from './adapter.ts';
import { adapterOf, veadRewrite } from './rewrite.ts';

/** Pictures that go through the adapters together. */
const PICTURES = 64;

/** The model under all edits, in their order. */
export function chained(vlm: Vlm, edits: readonly Edit[]): AnsweringModel {
  const layers = new Set(edits.map((edit) => edit.settings.layer as number));
  const states = layers.size === 1 ? sharedStates(vlm, [...layers][0]!) : undefined;
  if (states === undefined) {
    // Adapters at several layers read each other's effects, and large models keep no states: the chain is part
    // of the program.
    const rewrite = chainRows(vlm, edits);
    return {
      answerTargets: (queries) => answerTargets(vlm, queries, rewrite),
      generate: (queries, options) => generateAll(vlm, queries, options, rewrite),
      read: (input) => readInput(vlm, input, rewrite),
    };
  }
  const pictures = new EditedPictures(states, edits);
  return {
    answerTargets: async (queries) => answerTargets(vlm, queries, await pictures.rewriteRows(queries)),
    generate: async (queries, options) => generateAll(vlm, queries, options, await pictures.rewriteRows(queries)),
    read: async (input) => readInput(vlm, input, await pictures.rewriteRows([input])),
  };
}

/** Rewrites that hold all adapters. */
function chainRows(vlm: Vlm, edits: readonly Edit[]): RewriteRows {
  return (rows, batch: BatchShape) =>
    batch.image
      ? chainRewrites(
          edits.map((edit, i) =>
            veadRewrite(
              vlm,
              rows.map(() => edit),
              `${i}`,
            ),
          ),
        )
      : undefined;
}

class EditedPictures {
  readonly #known = new Map<string, Tensor<'float32'>>();

  constructor(
    readonly states: SharedStates,
    readonly edits: readonly Edit[],
  ) {}

  /** Puts the edited visual tokens in the place of the model's own, for the rows of these queries. */
  async rewriteRows(queries: readonly { image?: RgbImage | undefined; prompt: string }[]): Promise<RewriteRows> {
    const { vlm, layer } = this.states;
    const asked = queries.filter(({ image }) => image !== undefined) as { image: RgbImage; prompt: string }[];
    const missing = [...new Map(asked.map((query) => [vlm.imageKey(query.image), query])).values()].filter(
      ({ image }) => !this.#known.has(vlm.imageKey(image)),
    );
    for (let at = 0; at < missing.length; at += PICTURES) await this.#edit(missing.slice(at, at + PICTURES));
    const start = vlm.visualStart;
    const v = vlm.architecture.visualTokens;
    const patch: Patch = (x: Node) =>
      concat(
        [slice(x, 1, 0, start), input('vead.edited', [x.dim(0), v, vlm.decoder.hidden]), slice(x, 1, start + v, x.dim(1))],
        1,
      );
    const { edits } = this;
    const rewrite = (rows: readonly number[], batch: BatchShape): Rewrite | undefined =>
      batch.image
        ? {
            key: `vead chain|${layer}`,
            patches: (image: boolean) => new Map(image ? [[`layers.${layer}.out`, patch]] : []),
            replace: new Map<string, (weight: Node) => Node>(),
            feeds: { 'vead.edited': stack(rows.map((i) => this.#known.get(vlm.imageKey(queries[i]!.image!))!)) },
          }
        : undefined;
    return Object.assign(rewrite, { afterLayer: { layer, editOf: () => edits } });
  }

  /** Takes pictures through all adapters. */
  async #edit(queries: readonly { image: RgbImage; prompt: string }[]): Promise<void> {
    const { vlm } = this.states;
    const [start, v, d] = [vlm.visualStart, vlm.architecture.visualTokens, vlm.decoder.hidden];
    const asked = vlm.batchShape(queries.map(({ prompt }) => vlm.layout(prompt, true)));
    const hidden = await this.states.hidden({ ...asked, images: queries.map(({ image }) => image) });
    let visual = stack(hidden.map((states) => f32(states.subarray(start * d, (start + v) * d), [v, d])));
    const rows = i64(new Array<number>(queries.length).fill(0), [queries.length]);
    for (const edit of this.edits) {
      const { shape, parts, weights } = adapterOf(edit);
      const program = await vlm.program(`vead chain step|${JSON.stringify([shape, parts])}`, () => {
        const w = new Weights();
        for (const [name, dims] of adapterShapes(shape)) w.bind(name, input(name, dims));
        const given = {
          signal: input('signal', [1, 'n', d]),
          bias: input('bias', [1, 'n']),
          ends: input('ends', [1], 'int64'),
        };
        const rowOf = input('rows', ['p'], 'int64');
        const { output } = visualEditAdapter(w, shape, input('visual', ['p', v, d]), given, parts, (x) => gather(x, rowOf));
        return { output };
      });
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
    queries.forEach(({ image }, i) => {
      this.#known.set(vlm.imageKey(image), f32(visual.data.slice(i * v * d, (i + 1) * v * d), [v, d]));
    });
  }
}
