/**
 * Stage 2 of a mini: decoder and connector learn the lessons over the frozen tower's features. Beside the answers, every visual token
 * predicts the word of its home's cell (of an empty one, the colour of the background) through the vocabulary matrix: it keeps vision and words in
 * one space.
 */

import type { Atlas } from '../data/world/atlas.ts';
import { allConcepts, colors, concept } from '../data/world/concepts.ts';
import { type LessonKind, lessonScene } from '../data/world/lessons.ts';
import { eosId, WorldEncoder } from '../data/world/vocabulary.ts';
import { f32, i64, type Tensor } from '../graph/dtype.ts';
import {
  add,
  argMax,
  cast,
  concat,
  crossEntropy,
  equal,
  gather,
  input,
  mean,
  mul,
  mulDim,
  type Node,
  reshape,
  slice,
  sum,
} from '../graph/index.ts';
import type { Architecture } from '../models/architecture.ts';
import { Sites } from '../models/sites.ts';
import { Trainer } from '../nn/trainer.ts';
import { Weights } from '../nn/weights.ts';
import { compile } from '../runtime/node.ts';
import { homeCells } from './homes.ts';
import { type Prefix, pack } from './pack.ts';
import { pixelValues } from './pixels.ts';

export interface DecoderStage {
  steps: number;
  scenes: number;
  lessons: number;
  /** lessons of each scene that are drills */
  drills: number;
  facts: number;
  rate: number;
  muonRate: number;
  decay: number;
  /** weight of the patch-to-word loss */
  patchWord: number;
  /** share of the cell's place and the background's colour in that loss */
  attributes: number;
  /**
   * weight of the lens loss: after each of the first three layers, an answer word still says itself and a visual token its cell through the
   * final norm and the vocabulary matrix
   */
  lens: number;
  /** fraction of the steps at the full rate; then linearly to 0 */
  hold: number;
  /** relative frequency of lesson kinds */
  lessonWeights: Partial<Record<Exclude<LessonKind, 'fact'>, number>>;
}

export const decoderStage: DecoderStage = {
  steps: 2400,
  scenes: 16,
  lessons: 8,
  drills: 1,
  facts: 2,
  rate: 3e-3,
  muonRate: 0.02,
  decay: 0.05,
  patchWord: 0.3,
  attributes: 0,
  lens: 0,
  hold: 0.6,
  lessonWeights: {
    place: 1,
    relation: 1.6,
    where: 1.3,
    count: 1.6,
    exists: 1.2,
    background: 0.9,
    category: 1.2,
    kind: 1,
    caption: 0.8,
    list: 0.4,
    probe: 0.4,
    tally: 0.4,
    find: 0.4,
    sides: 0.3,
    kinds: 0.1,
    groups: 0.1,
  },
};

/** Layers that the lens loss looks at: those that an editor may be inserted after. */
const lensLayers = [0, 1, 2];

/**
 * Stage 3: gentler, and visual tokens also say where they are and on what colour, so that "where" and "background" are read off them as
 * names are. From the start this would hide the names from the matching.
 */
export const refineStage: DecoderStage = {
  ...decoderStage,
  steps: 900,
  rate: 2e-3,
  muonRate: 0.01,
  attributes: 0.3,
  hold: 0.3,
  lessonWeights: { ...decoderStage.lessonWeights, where: 2.2, background: 1.6, count: 1.8, caption: 1.4, relation: 2, find: 0.6 },
};

/**
 * Stage 4: words and visual tokens are brought into one space in the first layers, too, so that an editor that copies a word's state into the
 * picture writes what the decoder reads as that thing, for words that its training never asked for. The kinds that come last get most lessons.
 */
export const alignStage: DecoderStage = {
  ...refineStage,
  steps: 700,
  rate: 2.5e-3,
  muonRate: 0.015,
  facts: 3,
  lens: 0.3,
  hold: 0.4,
  lessonWeights: {
    ...{ place: 0.7, relation: 3.5, where: 4, count: 2.5, exists: 0.8, background: 0.7, category: 0.7, kind: 0.5, caption: 1 },
    ...{ list: 0.3, probe: 0.3, tally: 0.5, find: 0.8, sides: 0.8, kinds: 0.2, groups: 0.2 },
  },
};

/** Stage 5: the rate goes to 0 over the kinds that are still unsure: relations, counts, captions. */
export const polishStage: DecoderStage = {
  ...alignStage,
  steps: 600,
  rate: 2e-3,
  muonRate: 0.012,
  hold: 0.15,
  lessonWeights: {
    ...{ place: 1, relation: 4, where: 1.5, count: 4, exists: 1.2, background: 0.8, category: 1.2, kind: 1.2, caption: 2.5 },
    ...{ list: 0.3, probe: 0.3, tally: 0.8, find: 0.5, sides: 1, kinds: 0.3, groups: 0.2 },
  },
};

export async function decoderTrainer(
  architecture: Architecture,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  stage: DecoderStage,
  visionWidth: number,
  prefix: Prefix,
  atlas: Atlas,
  seed: string | number,
  threads: number | undefined,
): Promise<{ trainer: Trainer; feeds: (step: number) => Promise<Record<string, Tensor>>; kinds: () => readonly string[] }> {
  const { decoder, imageSize, visualTokens } = architecture;
  const d = decoder.hidden;

  const towerSites = new Sites();
  architecture.vision(input('pixels', ['b', 3, ...imageSize]), new Weights(), towerSites);
  const towerProgram = await compile(
    { features: towerSites.get('vision.features') },
    { weights: (name) => tower.get(name), threads },
  );

  const w = new Weights();
  const features = input('features', ['s', towerSites.get('vision.features').dim(1), visionWidth]);
  const sites = new Sites(new Map([['vision.features', () => features]]));
  const visual = architecture.vision(input('pixels', ['s', 3, ...imageSize]), w, sites);
  const ids = input('ids', ['s', 'l'], 'int64');
  const positions = input('positions', ['s', 'l'], 'int64');
  const bias = input('bias', ['s', 1, 'l', 'l']);
  const words = decoder.embed(ids, w);
  const start = prefix.before.length;
  const begin = start === 0 ? [] : [slice(words, 1, 0, start)];
  let x = decoder.enter(concat([...begin, visual, slice(words, 1, start + visualTokens, 'l')], 1), positions, w);
  const inner = new Sites();
  for (let i = 0; i < decoder.layers; i++) x = decoder.layer(i, x, { weights: w, sites: inner, positions, bias });
  const labels = input('labels', ['r'], 'int64');
  const logits = decoder.head(gather(reshape(x, [mulDim('s', 'l'), d]), input('rows', ['r'], 'int64')), w);
  const answers = sum(mul(crossEntropy(logits, labels), input('weights', ['r'])));
  const hits = cast(equal(argMax(logits), labels), 'float32');
  const visualSays = (tokens: Node): Node => {
    const scores = decoder.head(reshape(tokens, [mulDim('s', visualTokens), d]), w);
    const says = (name: string): Node =>
      mean(crossEntropy(scores, reshape(input(name, ['s', visualTokens], 'int64'), [mulDim('s', visualTokens)])));
    if (stage.attributes === 0) return says('patchWords');
    const attributes = ['patchRows', 'patchColumns', 'patchColors'].map(says).reduce((p, q) => add(p, q));
    return add(mul(says('patchWords'), 1 - stage.attributes), mul(attributes, stage.attributes / 3));
  };
  const patchLoss = visualSays(visual);
  let loss = add(answers, mul(patchLoss, stage.patchWord));
  if (stage.lens > 0) {
    const said = input('saidWords', ['w'], 'int64');
    const at = input('saidRows', ['w'], 'int64');
    for (const i of lensLayers) {
      const h = inner.get(`layers.${i}.out`);
      const itself = mean(crossEntropy(decoder.head(gather(reshape(h, [mulDim('s', 'l'), d]), at), w), said));
      loss = add(loss, mul(add(itself, visualSays(slice(h, 1, start, start + visualTokens))), stage.lens / lensLayers.length));
    }
  }
  const trainer = await Trainer.create({
    loss,
    metrics: { answers, hits, patchLoss },
    initial,
    rule: (name, shape) =>
      shape.length === 2 && !/embed|lm_head|position/.test(name)
        ? // Decay would forget that W_K started near W_Q before matching is learned from it.
          {
            rule: 'muon',
            rate: stage.muonRate / stage.rate,
            ...(/[qk]_proj|\.(query|key)\./.test(name) ? {} : { decay: stage.decay }),
          }
        : { rule: 'adam', beta2: 0.98 },
    clip: 1,
    compile,
    options: { threads },
  });
  const encoder = new WorldEncoder();
  const wordIds = allConcepts.map((c) => encoder.id(`▁${concept(c).word}`));
  const colorIds = colors.map((c) => encoder.id(`▁${c.name}`));
  let kinds: readonly string[] = [];
  const homes = homeCells(architecture);
  const [top, bottom, left, right] = ['top', 'bottom', 'left', 'right'].map((word) => encoder.id(`▁${word}`)) as [
    number,
    number,
    number,
    number,
  ];
  return {
    trainer,
    kinds: () => kinds,
    feeds: async (step) => {
      const scenes = Array.from({ length: stage.scenes }, (_, i) =>
        lessonScene(atlas, `${seed}/decoder`, (step - 1) * stage.scenes + i, {
          perScene: stage.lessons,
          drills: stage.drills,
          facts: stage.facts,
          weights: stage.lessonWeights,
        }),
      );
      const seen = await towerProgram.run({
        pixels: pixelValues(
          scenes.map((s) => s.image),
          imageSize[0],
        ),
      });
      const packed = pack(scenes, prefix);
      const r = packed.rows.length;
      kinds = packed.kinds;
      // An answer word stands one place after the row that predicts it.
      const said = packed.labels.map((id, i) => ({ id, row: packed.rows[i]! + 1 })).filter(({ id }) => id !== eosId);
      const atHome = (of: (scene: (typeof scenes)[number], cell: number) => number): Tensor =>
        i64(
          scenes.flatMap((scene) => homes.map((cell) => of(scene, cell))),
          [scenes.length, visualTokens],
        );
      return {
        ...packed.feeds,
        features: seen.features!,
        rows: i64(packed.rows, [r]),
        labels: i64(packed.labels, [r]),
        weights: f32(packed.weights, [r]),
        patchWords: atHome(({ cells, background }, cell) => (cells[cell]! < 0 ? colorIds[background]! : wordIds[cells[cell]!]!)),
        saidWords: i64(
          said.map(({ id }) => id),
          [said.length],
        ),
        saidRows: i64(
          said.map(({ row }) => row),
          [said.length],
        ),
        patchRows: atHome((_, cell) => (cell < 2 ? top : bottom)),
        patchColumns: atHome((_, cell) => (cell % 2 === 0 ? left : right)),
        patchColors: atHome(({ background }) => colorIds[background]!),
      };
    },
  };
}
