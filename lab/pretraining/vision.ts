/**
 * Stage 1 of a mini: its vision tower learns what every patch shows. Per patch, linear probes on the features predict the concept of the
 * patch's cell, the background, and the patch's row and column (the decoder has no other knowledge of place).
 */

import { i64, type Tensor } from '../../src/graph/dtype.ts';
import {
  add,
  argMax,
  cast,
  crossEntropy,
  type Dim,
  equal,
  input,
  matmul,
  mean,
  mul,
  mulDim,
  type Node,
  parameter,
  reshape,
  slice,
} from '../../src/graph/index.ts';
import { Sites } from '../../src/models/sites.ts';
import { Trainer } from '../../src/nn/trainer.ts';
import { Weights } from '../../src/nn/weights.ts';
import { compile } from '../../src/runtime/node.ts';
import type { Atlas } from '../world/atlas.ts';
import { allConcepts, colors } from '../world/concepts.ts';
import { lessonScene } from '../world/lessons.ts';
import { squareShape } from '../world/scene.ts';
import { cellsOf } from './homes.ts';
import type { Mini } from './minis.ts';
import { scenePictures } from './pictures.ts';

export interface VisionStage {
  steps: number;
  batch: number;
  /** peak rate of Adam's weights; Muon's is `muonRate` */
  rate: number;
  muonRate: number;
}

export const visionStage: VisionStage = { steps: 1600, batch: 64, rate: 1.5e-3, muonRate: 0.02 };

/** The trainer of stage 1, and its feeds for a step. */
export async function visionTrainer(
  mini: Mini,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  stage: VisionStage,
  atlas: Atlas,
  seed: string | number,
  threads: number | undefined,
): Promise<{ trainer: Trainer; feeds: (step: number) => Record<string, Tensor> }> {
  const { architecture, visionWidth: width } = mini;
  const pictures = scenePictures(mini);
  const [rows, columns] = placesOf(mini);
  const tokens: Dim = architecture.fixed === undefined ? 'v' : rows * columns;
  const sites = new Sites();
  architecture.vision(architecture.pixels(), new Weights(), sites);
  const features = reshape(patchFeatures(sites.get('vision.features'), tokens), [mulDim('b', tokens), width]);
  const probe = (name: string, classes: number): { loss: Node; right: Node } => {
    const labels = reshape(input(name, ['b', tokens], 'int64'), [mulDim('b', tokens)]);
    const logits = add(
      matmul(features, parameter(`probe.${name}.weight`, [classes, width]), false, true),
      parameter(`probe.${name}.bias`, [classes]),
    );
    return { loss: mean(crossEntropy(logits, labels)), right: mean(cast(equal(argMax(logits), labels), 'float32')) };
  };
  const cell = probe('cell', allConcepts.length + 1);
  const background = probe('background', colors.length);
  const row = probe('row', rows);
  const column = probe('column', columns);
  const loss = add(add(cell.loss, mul(background.loss, 0.3)), mul(add(row.loss, column.loss), 0.1));
  const trainer = await Trainer.create({
    loss,
    metrics: { right: cell.right },
    initial,
    rule: (name, shape) =>
      shape.length === 2 &&
      /\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2|linear_fc1|linear_fc2|qkv|projection|attn\.proj)\.weight$/.test(name)
        ? { rule: 'muon', rate: stage.muonRate / stage.rate, decay: 0.01 }
        : { rule: 'adam', beta2: 0.98, decay: 0.01 },
    compile,
    options: { threads },
  });
  return {
    trainer,
    feeds: (step) => {
      const shape = pictures.shapeOf(step);
      const [down, across] = pictures.gridOf(shape);
      const scenes = Array.from({ length: stage.batch }, (_, i) =>
        lessonScene(atlas, `${seed}/vision`, (step - 1) * stage.batch + i, { perScene: 0, facts: 0, shape }),
      );
      const cells = cellsOf([down, across]);
      const every = (of: (scene: (typeof scenes)[number], patch: number) => number): Tensor =>
        i64(
          scenes.flatMap((scene) => cells.map((_, patch) => of(scene, patch))),
          [scenes.length, cells.length],
        );
      return {
        ...pictures.feeds(
          scenes.map((s) => s.image),
          shape,
        ),
        cell: every((s, patch) => (s.cells[cells[patch]!]! < 0 ? allConcepts.length : s.cells[cells[patch]!]!)),
        background: every((s) => s.background),
        row: every((_, patch) => Math.floor((Math.floor(patch / across) * rows) / down)),
        column: every((_, patch) => Math.floor(((patch % across) * columns) / across)),
      };
    },
  };
}

/** Rows and columns that a patch is asked for: those of pictures of one size, or of the world's own. */
const placesOf = (mini: Mini): readonly [number, number] => scenePictures(mini).gridOf(squareShape);

/** Features of the patches: a class token before them is dropped. */
const patchFeatures = (x: Node, patches: Dim): Node => (x.dim(1) === patches ? x : slice(x, 1, 1, x.dim(1)));

/** Names and shapes of the probes. */
export function probeShapes(mini: Mini): Map<string, readonly number[]> {
  const { visionWidth: width } = mini;
  const [rows, columns] = placesOf(mini);
  const classes = { cell: allConcepts.length + 1, background: colors.length, row: rows, column: columns };
  return new Map(
    Object.entries(classes).flatMap(
      ([name, n]) =>
        [
          [`probe.${name}.weight`, [n, width]],
          [`probe.${name}.bias`, [n]],
        ] as [string, number[]][],
    ),
  );
}
