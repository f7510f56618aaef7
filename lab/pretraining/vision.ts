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
import type { Architecture } from '../../src/models/architecture.ts';
import { Sites } from '../../src/models/sites.ts';
import { Trainer } from '../../src/nn/trainer.ts';
import { Weights } from '../../src/nn/weights.ts';
import { compile } from '../../src/runtime/node.ts';
import type { Atlas } from '../world/atlas.ts';
import { allConcepts, colors } from '../world/concepts.ts';
import { lessonScene } from '../world/lessons.ts';
import { fixedOf } from './homes.ts';
import { pixelValues } from './pixels.ts';

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
  architecture: Architecture,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  stage: VisionStage,
  width: number,
  atlas: Atlas,
  seed: string | number,
  threads: number | undefined,
): Promise<{ trainer: Trainer; feeds: (step: number) => Record<string, Tensor> }> {
  const [rows, columns] = fixedOf(architecture).grid;
  const tokens = rows * columns;
  const size = fixedOf(architecture).size[0];
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
      shape.length === 2 && /\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2|qkv|projection|attn\.proj)\.weight$/.test(name)
        ? { rule: 'muon', rate: stage.muonRate / stage.rate, decay: 0.01 }
        : { rule: 'adam', beta2: 0.98, decay: 0.01 },
    compile,
    options: { threads },
  });
  const every = (f: (row: number, column: number) => number): number[] =>
    Array.from({ length: tokens }, (_, i) => f(Math.floor(i / columns), i % columns));
  const cellOfPatch = every((r, c) => 2 * Math.floor((2 * r) / rows) + Math.floor((2 * c) / columns));
  const rowLabels = every((r) => r);
  const columnLabels = every((_, c) => c);
  return {
    trainer,
    feeds: (step) => {
      const scenes = Array.from({ length: stage.batch }, (_, i) =>
        lessonScene(atlas, `${seed}/vision`, (step - 1) * stage.batch + i, { perScene: 0, facts: 0 }),
      );
      const shape = [scenes.length, tokens];
      return {
        pixels: pixelValues(
          scenes.map((s) => s.image),
          size,
        ),
        cell: i64(
          scenes.flatMap((s) => cellOfPatch.map((cell2) => (s.cells[cell2]! < 0 ? allConcepts.length : s.cells[cell2]!))),
          shape,
        ),
        background: i64(
          scenes.flatMap((s) => cellOfPatch.map(() => s.background)),
          shape,
        ),
        row: i64(
          scenes.flatMap(() => rowLabels),
          shape,
        ),
        column: i64(
          scenes.flatMap(() => columnLabels),
          shape,
        ),
      };
    },
  };
}

/** Features of the patches: a class token before them is dropped. */
const patchFeatures = (x: Node, patches: number): Node => (x.dim(1) === patches ? x : slice(x, 1, 1, x.dim(1)));

/** Names and shapes of the probes. */
export function probeShapes(architecture: Architecture, width: number): Map<string, readonly number[]> {
  const [rows, columns] = fixedOf(architecture).grid;
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
