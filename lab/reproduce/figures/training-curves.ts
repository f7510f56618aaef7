/** Loss and other logged numbers over the steps of a training: a mini backbone's stages, or an editor's training folder. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { fileId } from '../../../src/evaluation/manifest.ts';
import type { Figure, FigurePanel, LineSeries } from '../../../src/figures/index.ts';
import { readJsonAs, readJsonLines } from '../../../src/files/schema.ts';
import { modelFolder } from '../../../src/models/load.ts';
import { type LogLine, logFile, logLine } from '../../../src/nn/loop.ts';
import type { PaperFigure } from './figure.ts';

export interface Stage {
  name: string;
  lines: readonly LogLine[];
}

/** Logged with every step, but no result of it. */
const settings = new Set(['step', 'loss', 'rate', 'gradientNorm', 'seconds']);
/** Shown first, where a log has more numbers than lines that can be told apart. */
const telling = ['place', 'relation', 'where', 'count', 'category', 'background', 'caption'];
const mostLines = 7;
const mostPoints = 60;

export const trainingCurves: PaperFigure = {
  summary: 'training curves of a mini backbone, or of the editor trained in --from DIR',
  models: ['mini-llava'],
  async make({ models, from }) {
    const name = models?.[0] ?? trainingCurves.models[0]!;
    const { title, stages, path } = from === undefined ? backbone(name) : editor(from);
    const all = joined(stages);
    const last = all.at(-1)!;
    return {
      caption: `Training of ${title}: ${all.length} logged steps, ${last.step} in all${stages.length > 1 ? `; stages ${stages.map((stage, i) => `${i + 1} ${stage.name}`).join(', ')}` : ''}.`,
      figure: curves(stages),
      claims: [],
      measures: { steps: last.step, first: all[0], last },
      models: [],
      files: [fileId(path)],
    };
  },
};

/** Loss and what has the size of a loss on the left, shares on the right. */
export function curves(stages: readonly Stage[]): Figure {
  const all = joined(stages);
  const names = Object.keys(all.at(-1)!).filter((key) => !settings.has(key));
  const shares = names.filter((key) => all.every((line) => line[key] === undefined || (line[key] >= 0 && line[key] <= 1)));
  const losses = names.filter((key) => !shares.includes(key));
  const marks = stages.length > 1 ? starts(stages) : [];
  const line = (key: string): LineSeries => {
    const points = thinned(all.filter((one) => one[key] !== undefined));
    return { label: key, x: points.map(({ step }) => step), y: points.map((one) => one[key]!) };
  };
  const positive = (key: string): boolean => all.every((one) => one[key] === undefined || one[key] > 0);
  const lossLines = ['loss', ...losses].slice(0, mostLines);
  const panels: FigurePanel[] = [
    {
      kind: 'line-chart',
      title: '(a) Loss',
      data: {
        xTitle: 'Step',
        yTitle: 'Loss',
        yScale: lossLines.every(positive) ? 'log' : 'linear',
        series: lossLines.map(line),
        marks,
      },
    },
  ];
  const kinds = [...telling.filter((key) => shares.includes(key)), ...shares.filter((key) => !telling.includes(key))];
  if (kinds.length > 0) {
    panels.push({
      kind: 'line-chart',
      title: stages.length > 1 ? '(b) Token accuracy on fresh lessons' : '(b) Other numbers',
      data: {
        xTitle: 'Step',
        yTitle: 'Share',
        yFormat: 'percent',
        yRange: [0, 1],
        series: kinds.slice(0, mostLines).map(line),
        marks: marks.map(({ x }) => ({ x, label: '' })),
      },
    });
  }
  return { panels, columns: 2 };
}

const curvesOf = z.looseObject({ curves: z.record(z.string(), z.array(logLine)).optional() });

function backbone(model: string): { title: string; stages: Stage[]; path: string } {
  const path = join(modelFolder(model), 'training.json');
  if (!existsSync(path))
    throw new Error(`${model} comes without ${path}; name a training folder with --from, as \`visedit train\` writes it`);
  const { curves = {} } = readJsonAs(path, curvesOf);
  const stages = Object.entries(curves).flatMap(([name, lines]) => (lines.length > 0 ? [{ name, lines }] : []));
  if (stages.length === 0) throw new Error(`${path} holds no stage with logged steps`);
  return { title: model, stages, path };
}

function editor(folder: string): { title: string; stages: Stage[]; path: string } {
  const path = join(folder, logFile);
  if (!existsSync(path)) throw new Error(`there is no ${path}; name a folder that \`visedit train\` wrote with --from`);
  const lines = readJsonLines(path, logLine);
  if (lines.length === 0) throw new Error(`${path} holds no steps yet`);
  return { title: folder, stages: [{ name: 'training', lines }], path };
}

/** All stages with steps counted on. */
function joined(stages: readonly Stage[]): LogLine[] {
  let before = 0;
  return stages.flatMap(({ lines }) => {
    const moved = lines.map((line) => ({ ...line, step: line.step + before }));
    before = moved.at(-1)!.step;
    return moved;
  });
}

function starts(stages: readonly Stage[]): { x: number; label: string }[] {
  let before = 0;
  return stages.map(({ lines }, i) => {
    const at = { x: before, label: String(i + 1) };
    before += lines.at(-1)!.step;
    return at;
  });
}

/** Means of neighbouring points, so that a long log stays readable. */
function thinned(lines: readonly LogLine[]): LogLine[] {
  const group = Math.ceil(lines.length / mostPoints);
  if (group <= 1) return [...lines];
  return Array.from({ length: Math.ceil(lines.length / group) }, (_, i) => {
    const part = lines.slice(i * group, (i + 1) * group);
    const keys = Object.keys(part.at(-1)!);
    return {
      ...part.at(-1)!,
      ...Object.fromEntries(keys.map((key) => [key, part.reduce((sum, line) => sum + (line[key] ?? 0), 0) / part.length])),
      step: part.at(-1)!.step,
    };
  });
}
