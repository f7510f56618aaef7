/** The insert-layer sweep of Table 2 as lines, beside the module contributions that the paper derives the layer from. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { fileId } from '../../../src/evaluation/manifest.ts';
import type { Figure, LineSeries } from '../../../src/figures/index.ts';
import { readJson } from '../../../src/files/json.ts';
import { type Claim, type PaperFigure, percent } from './figure.ts';

const metrics = ['average', 'reliability', 'textGenerality', 'modalGenerality', 'textLocality', 'modalLocality'] as const;
const labels: Record<(typeof metrics)[number], string> = {
  reliability: 'reliability',
  textGenerality: 'text generality',
  modalGenerality: 'modal generality',
  textLocality: 'text locality',
  modalLocality: 'modal locality',
  average: 'average',
};

const row = z.object({
  layer: z.number(),
  ...(Object.fromEntries(metrics.map((m) => [m, z.number()])) as Record<(typeof metrics)[number], z.ZodNumber>),
});
const table = z.object({
  model: z.string(),
  rows: z.array(row).min(1),
  contributions: z.object({ attn: z.array(z.number()), mlp: z.array(z.number()) }),
});

export const layerSweep: PaperFigure = {
  summary: 'metrics by insert layer, from a finished table2 (--from DIR), beside the module contributions',
  models: ['mini-llava'],
  async make({ models, from }) {
    const folder = from ?? join('results', models?.[0] ?? layerSweep.models[0]!, 'table2');
    const path = join(folder, 'table2.json');
    if (!existsSync(path))
      throw new Error(`there is no ${path}; make it with: visedit reproduce table2, and name its folder with --from`);
    const parsed = table.safeParse(readJson(path));
    if (!parsed.success) {
      const { path: place, message } = parsed.error.issues[0]!;
      throw new Error(
        `${path} is no table of insert layers: ${place.join('.')}: ${message}; make it again with: visedit reproduce table2`,
      );
    }
    const { model, rows, contributions } = parsed.data;
    const best = rows.reduce((a, b) => (b.average > a.average ? b : a));
    return {
      caption: `VEAD on ${model} by insert layer (token accuracy), and the contribution of each layer's attention and MLP to the answer before any edit; the best layer is marked.`,
      figure: sweepFigure(rows, contributions, best.layer),
      claims: [sweepClaim(model, rows, best)],
      measures: { rows, contributions, best: best.layer },
      models: [],
      files: [fileId(path)],
    };
  },
};

type Row = z.infer<typeof row>;

export function sweepFigure(rows: readonly Row[], contributions: { attn: number[]; mlp: number[] }, best: number): Figure {
  const line = (metric: (typeof metrics)[number]): LineSeries => ({
    label: labels[metric],
    x: rows.map(({ layer }) => layer),
    y: rows.map((one) => one[metric]),
  });
  return {
    columns: 2,
    panels: [
      {
        kind: 'line-chart',
        title: '(a) Editing by insert layer',
        data: {
          xTitle: 'Insert layer',
          yTitle: 'Token accuracy',
          yFormat: 'percent',
          points: true,
          series: metrics.map(line),
          marks: [{ x: best, label: 'best' }],
        },
      },
      {
        kind: 'module-bars',
        title: '(b) Module contributions',
        data: { layers: contributions.attn.map((_, i) => i), ...contributions, markLayer: best },
      },
    ],
  };
}

function sweepClaim(
  model: string,
  rows: readonly { layer: number; average: number }[],
  best: { layer: number; average: number },
): Claim {
  const [first, last] = [rows[0]!, rows.at(-1)!];
  return {
    claim: `${model}: editing first gets better with depth and worse again for the last layers`,
    holds: best.average > first.average && best.average > last.average,
    measured: `average ${percent(first.average)} at layer ${first.layer}, ${percent(best.average)} at layer ${best.layer}, ${percent(last.average)} at layer ${last.layer}`,
  };
}
