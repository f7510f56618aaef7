/** The paper's figures from small made-up measures, for the snapshots. */

import { overview } from '../../lab/reproduce/figures/figure1.ts';
import { gatesFigure } from '../../lab/reproduce/figures/figure3.ts';
import { type EditViews, editPanel } from '../../lab/reproduce/figures/figure4.ts';
import { contributionBars } from '../../lab/reproduce/figures/figure5.ts';
import { rightAndWrong } from '../../lab/reproduce/figures/figure6.ts';
import { allLayers } from '../../lab/reproduce/figures/figure7.ts';
import { sweepFigure } from '../../lab/reproduce/figures/layer-sweep.ts';
import { questionRow } from '../../lab/reproduce/figures/maps.ts';
import { curves } from '../../lab/reproduce/figures/training-curves.ts';
import { drawFigure, type Figure } from '../../src/figures/index.ts';
import { bump, scene } from './samples.ts';

const grid = [6, 6] as const;
const topLeft = [0, 0, 0.5, 0.5] as const;
const image = (ground?: readonly [number, number, number]) => {
  const { width, height, data } = scene(36, 36, ground);
  return { width, height, data: data as Uint8Array };
};
const average = (size: number) => ({
  contribution: {
    attn: [0.1, 0.05, 0.7, 0.02, 0.3, 0.9].map((x) => x * size),
    mlp: [0.05, 0.1, 0.15, -0.02, 0.1, 0.2].map((x) => x * size),
  },
});
const layers = [0, 1, 2, 3, 4, 5];
/** Layer 0 shows nothing, deep layers look at the top left. */
const maps = layers.map((layer) => ({
  layer,
  values: layer === 0 ? new Array(36).fill(1e-12) : Array.from(bump(6, 6, layer > 3 ? 1 : layer, layer > 3 ? 1 : 4, layer / 50)),
}));
const question = {
  prompt: 'What is at the top left? The answer is:',
  answer: 'ball',
  image: image(),
  maps,
  box: topLeft,
};
const gates = (size: number) => Array.from(bump(6, 6, 1, 1, size));
const test = {
  prompt: 'What is at the top left? The answer is:',
  target: 'lion',
  box: topLeft,
  edited: image(),
  rephrased: image([150, 120, 160]),
  unrelated: image([90, 160, 110]),
  gates: { edited: gates(0.9), rephrased: gates(0.7), unrelated: gates(0.1) },
};
const editViews = (): EditViews => {
  const view = (prompt: string, picture: EditViews['views']['beRel']['image'], answer: string) => ({
    prompt,
    image: picture,
    answer,
    maps,
  });
  return {
    prompt: test.prompt,
    target: 'lion',
    box: topLeft,
    views: {
      beRel: view(test.prompt, test.edited, 'ball'),
      aeRel: view(test.prompt, test.edited, 'lion'),
      aeTextGen: view('Which thing do you see in the upper left corner? The answer is:', test.edited, 'lion'),
      aeModalGen: view(test.prompt, test.rephrased, 'lion'),
      beModalLoc: view('How many things are there? The answer is:', test.unrelated, 'two'),
      aeModalLoc: view('How many things are there? The answer is:', test.unrelated, 'two'),
    },
  };
};
const log = (steps: number, from: number) =>
  Array.from({ length: steps }, (_, i) => ({
    step: 50 * (i + 1),
    loss: from * Math.exp(-i / 6) + 0.05,
    rate: 1e-3,
    gradientNorm: 1,
    seconds: 1,
    place: 1 - Math.exp(-(i + 1) / 4),
    count: 0.8 - 0.6 * Math.exp(-(i + 1) / 6),
  }));

export const paperSamples: Record<string, () => Figure> = {
  figure1: () =>
    overview(
      'mini-llava',
      average(1),
      [1, 2, 3, 4].map((n) => questionRow(`T${n}`, question, grid, [n + 1])),
    ),
  figure3: () =>
    gatesFigure(
      [
        { ...test, related: true },
        { ...test, related: false },
      ],
      grid,
      1,
    ),
  figure4: () => ({ columns: 1, panels: [editPanel(editViews(), grid, [3, 5])] }),
  figure5: () => ({ columns: 2, panels: ['mini-blip2-opt', 'mini-minigpt4'].map((name) => contributionBars(name, average(1))) }),
  figure6: () => ({ columns: 2, panels: rightAndWrong('mini-llava', average(1), average(0.05)) }),
  figure7: () =>
    allLayers(
      [1, 2].map((n) => questionRow(`T${n}`, question, grid, layers)),
      layers.length,
      [null, 0.3, 0.4, 0.5, 0.8, 0.9],
    ),
  figure8: () =>
    gatesFigure(
      [true, true, false, false].map((related) => ({ ...test, related })),
      grid,
      2,
    ),
  figure9: () => ({ columns: 1, panels: [editPanel(editViews(), grid, [4]), editPanel(editViews(), grid, [5])] }),
  'layer-sweep': () =>
    sweepFigure(
      [0, 2, 4].map((layer) => ({
        layer,
        average: 0.9 - 0.02 * (layer - 2) ** 2,
        reliability: 0.92 - 0.1 * (layer / 4),
        textGenerality: 0.9 - 0.1 * (layer / 4),
        modalGenerality: 0.88 - 0.1 * (layer / 4),
        textLocality: 1,
        modalLocality: 0.6 + 0.05 * layer,
      })),
      average(1).contribution,
      2,
    ),
  'training-curves': () =>
    curves([
      { name: 'vision', lines: log(20, 4) },
      { name: 'decoder', lines: log(12, 2) },
    ]),
};

export const paperDrawings: Record<string, () => Promise<string>> = Object.fromEntries(
  Object.entries(paperSamples).map(([name, make]) => [name, () => drawFigure(make())]),
);
