/**
 * Stage 2 of a mini: decoder and connector learn the lessons over the frozen tower's features. Beside the answers, every visual token
 * predicts the word of its home's cell (of an empty one, the colour of the background) through the vocabulary matrix: it keeps vision and words in
 * one space.
 */

import { f32, i64, type Tensor } from '../../src/graph/dtype.ts';
import {
  add,
  addDim,
  argMax,
  cast,
  concat,
  crossEntropy,
  type Dim,
  equal,
  gather,
  input,
  mean,
  mul,
  mulDim,
  type Node,
  pad,
  reshape,
  slice,
  subDim,
  sum,
} from '../../src/graph/index.ts';
import { type SplitStates, splitLayer, splitStates, textInPlace } from '../../src/models/forward.ts';
import { Sites } from '../../src/models/sites.ts';
import { causalBlocks } from '../../src/nn/layers.ts';
import { Trainer } from '../../src/nn/trainer.ts';
import { Weights } from '../../src/nn/weights.ts';
import { Random } from '../../src/random.ts';
import { compile } from '../../src/runtime/node.ts';
import type { Atlas } from '../world/atlas.ts';
import { allConcepts, colors, concept } from '../world/concepts.ts';
import { lessonScene } from '../world/lessons.ts';
import { pairLessons, pictureNumbers } from '../world/pairs.ts';
import { squareShape } from '../world/scene.ts';
import { eosId, WorldEncoder } from '../world/vocabulary.ts';
import { cellsOf, homeCells } from './homes.ts';
import type { Mini } from './minis.ts';
import { type Prefix, pack } from './pack.ts';
import { scenePictures } from './pictures.ts';
import type { DecoderStage } from './stages.ts';

/** Layers that the lens loss looks at: those that an editor may be inserted after. */
const lensLayers = [0, 1, 2];

export async function decoderTrainer(
  mini: Mini,
  tower: ReadonlyMap<string, Tensor<'float32'>>,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  stage: DecoderStage,
  prefixOf: (grid: readonly [number, number]) => Prefix,
  atlas: Atlas,
  seed: string | number,
  threads: number | undefined,
): Promise<{ trainer: Trainer; feeds: (step: number) => Promise<Record<string, Tensor>>; kinds: () => readonly string[] }> {
  const { architecture, visionWidth } = mini;
  const { decoder, fixed } = architecture;
  const pictures = scenePictures(mini);
  const visualTokens: Dim = fixed?.count ?? 'v';
  const d = decoder.hidden;

  const towerSites = new Sites();
  architecture.vision(architecture.pixels(), new Weights(), towerSites);
  const towerProgram = await compile(
    { features: towerSites.get('vision.features') },
    { weights: (name) => tower.get(name), threads },
  );

  const w = new Weights();
  const features = input('features', ['s', towerSites.get('vision.features').dim(1), visionWidth]);
  const sites = new Sites(new Map([['vision.features', () => features]]));
  // What stands before the features is no part of the program.
  const pixels = fixed === undefined ? architecture.pixels() : { pixels: input('pixels', ['s', 3, ...fixed.size]) };
  const wide = architecture.vision(pixels, w, sites);
  const ids = input('ids', ['s', 'l'], 'int64');
  const axes = decoder.positionAxes ?? 1;
  const positions = input('positions', axes === 1 ? ['s', 'l'] : [axes, 's', 'l'], 'int64');
  const bias = input('bias', ['s', 1, 'l', 'l']);
  const words = decoder.embed(ids, w);
  const { before, second } = prefixOf(pictures.gridOf(squareShape));
  const start = before.length;
  const end = addDim(start, visualTokens);
  const between = second?.between.length ?? 0;
  const length = second === undefined ? end : addDim(end, between, visualTokens);
  const parts = decoder.deepLayers ?? 0;
  const visual = parts === 0 ? wide : slice(wide, 2, 0, d);
  // The second picture of a scene is the next one's.
  const next = (x: Node): Node => concat([slice(x, 0, 1, 's'), slice(x, 0, 0, 1)], 0);
  const rest = subDim('l', length);
  const deep = (layer: number): Node | undefined => {
    if (layer >= parts) return undefined;
    const own = slice(wide, 2, (layer + 1) * d, (layer + 2) * d);
    return second === undefined ? pad(own, 1, start, rest) : concat([pad(own, 1, start, between), pad(next(own), 1, 0, rest)], 1);
  };
  const begin = start === 0 ? [] : [slice(words, 1, 0, start)];
  const behind = second === undefined ? [] : [slice(words, 1, end, addDim(end, between)), next(visual)];
  const entered = decoder.enter(concat([...begin, visual, ...behind, slice(words, 1, length, 'l')], 1), positions, w);
  // Text and picture as two parts: up to `rereadAfter`, the text of a scene may stand behind the picture of another.
  const order = input('order', ['s'], 'int64');
  let x = splitStates(entered, length);
  const states: SplitStates[] = [];
  for (let i = 0; i < decoder.layers; i++) {
    const spread = stage.reread > 0 && i <= stage.rereadAfter ? (y: Node): Node => gather(y, order) : undefined;
    x = splitLayer(decoder, i, x, {
      weights: w,
      sites: new Sites(),
      positions,
      bias,
      length,
      blocks: typeof length === 'number' ? causalBlocks(length) : [],
      deep,
      spread,
    });
    states.push(x);
  }
  const flat = (of: SplitStates): Node => reshape(textInPlace(of, length), [mulDim('s', 'l'), d]);
  const labels = input('labels', ['r'], 'int64');
  const rows = input('rows', ['r'], 'int64');
  const logits = decoder.head(gather(flat(x), rows), w);
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
      const itself = mean(crossEntropy(decoder.head(gather(flat(states[i]!), at), w), said));
      const shown = visualSays(slice(states[i]!.prefix, 1, start, end));
      loss = add(loss, mul(add(itself, shown), stage.lens / lensLayers.length));
    }
  }
  if (stage.order !== undefined && second !== undefined) {
    const later = addDim(end, between);
    for (const { prefix } of states.slice(1, stage.rereadAfter + 1)) {
      const says = [slice(prefix, 1, start, end), slice(prefix, 1, later, length)].map((tokens, i) => {
        const rows = mulDim('s', visualTokens);
        const number = reshape(input(`pictureNumber.${i}`, ['s', visualTokens], 'int64'), [rows]);
        return mean(crossEntropy(decoder.head(reshape(tokens, [rows, d]), w), number));
      });
      loss = add(loss, mul(add(says[0]!, says[1]!), stage.order / (2 * stage.rereadAfter)));
    }
  }
  if (stage.early > 0) {
    const known = decoder.head(gather(flat(states[stage.rereadAfter]!), rows), w);
    loss = add(loss, mul(sum(mul(crossEntropy(known, labels), input('earlyWeights', ['r']))), stage.early));
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
  const numberIds = pictureNumbers.map((word) => encoder.id(`▁${word}`));
  let kinds: readonly string[] = [];
  const homesOf = (grid: readonly [number, number]): number[] => (fixed === undefined ? cellsOf(grid) : homeCells(architecture));
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
      const shape = pictures.shapeOf(step);
      const grid = pictures.gridOf(shape);
      const homes = homesOf(grid);
      const scenes = Array.from({ length: stage.scenes }, (_, i) =>
        lessonScene(atlas, `${seed}/decoder`, (step - 1) * stage.scenes + i, {
          perScene: stage.lessons,
          drills: stage.drills,
          facts: stage.facts,
          doubles: stage.doubles,
          weights: stage.lessonWeights,
          shape,
        }),
      );
      const pairs = stage.pairs ?? 0;
      const taught = scenes.map((scene, i) => {
        const random = new Random(`${seed}/decoder/pairs/${(step - 1) * stage.scenes + i}`);
        const both = [scene.scene, scenes[(i + 1) % scenes.length]!.scene] as const;
        return { ...scene, lessons: [...scene.lessons, ...pairLessons(random, both, pairs, stage.pairBackgrounds)] };
      });
      const seen = await towerProgram.run(
        pictures.feeds(
          scenes.map((s) => s.image),
          shape,
        ),
      );
      const packed = pack(taught, prefixOf(grid));
      const r = packed.rows.length;
      const moved = Math.round(stage.reread * scenes.length);
      const isMoved = packed.rows.map((row) => Math.floor(row / packed.length) < moved);
      kinds = packed.kinds.map((kind, i) => (isMoved[i] && kind !== 'fact' ? `${kind} reread` : kind));
      const early = packed.weights.map((weight, i) => (isMoved[i] ? 0 : weight));
      const earlyTotal = early.reduce((a, b) => a + b, 0) || 1;
      // An answer word stands one place after the row that predicts it.
      const said = packed.labels.map((id, i) => ({ id, row: packed.rows[i]! + 1 })).filter(({ id }) => id !== eosId);
      const atHome = (of: (scene: (typeof scenes)[number], cell: number) => number): Tensor =>
        i64(
          scenes.flatMap((scene) => homes.map((cell) => of(scene, cell))),
          [scenes.length, homes.length],
        );
      return {
        ...packed.feeds,
        features: seen.features!,
        rows: i64(packed.rows, [r]),
        labels: i64(packed.labels, [r]),
        weights: f32(packed.weights, [r]),
        earlyWeights: f32(
          early.map((weight) => weight / earlyTotal),
          [r],
        ),
        order: i64(
          scenes.map((_, n) => (n < moved ? (n + 1) % moved : n)),
          [scenes.length],
        ),
        patchWords: atHome(({ cells, background }, cell) => (cells[cell]! < 0 ? colorIds[background]! : wordIds[cells[cell]!]!)),
        saidWords: i64(
          said.map(({ id }) => id),
          [said.length],
        ),
        saidRows: i64(
          said.map(({ row }) => row),
          [said.length],
        ),
        'pictureNumber.0': atHome(() => numberIds[0]!),
        'pictureNumber.1': atHome(() => numberIds[1]!),
        patchRows: atHome((_, cell) => (cell < 2 ? top : bottom)),
        patchColumns: atHome((_, cell) => (cell % 2 === 0 ? left : right)),
        patchColors: atHome(({ background }) => colorIds[background]!),
      };
    },
  };
}
