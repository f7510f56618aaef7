/** Figures of the server's results, as plain data that src/figures draws on the server and in a browser. */

import { rounding } from '../../lab/reproduce/figures/maps.ts';
import { hardKinds } from '../../src/evaluation/metrics.ts';
import type { Figure, FigurePanel, HeatMapRow } from '../../src/figures/index.ts';
import { queryKinds } from '../../src/input/records.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import type { Attribution, AttributionView, ComparedQuery } from './engine/tasks.ts';

export interface AttributionAsked {
  readonly model: string;
  readonly prompt: string;
  readonly image: RgbImage | undefined;
}

/** Bars of modules, probabilities by layer, and heat maps; the unedited model's stand first, on the same axes. */
export function attributionFigure({ model, prompt, image }: AttributionAsked, { layers, before, ...now }: Attribution): Figure {
  const views: [string, AttributionView][] =
    before === undefined
      ? [[model, now]]
      : [
          [model.split('@')[0]!, before],
          [model, now],
        ];
  const named = (title: string, name: string): string => (views.length > 1 ? `${title} (${name})` : title);
  const key = now.key.text.trim() || 'key token';
  const contributions = views.flatMap(([, { modules }]) =>
    modules === undefined ? [] : [...modules.contribution.attn, ...modules.contribution.mlp],
  );
  const yRange = [Math.min(0, ...contributions), Math.max(0, ...contributions)] as const;
  const bars = views.flatMap(([name, { modules }]): FigurePanel[] =>
    modules === undefined
      ? []
      : [
          {
            kind: 'module-bars',
            data: {
              layers,
              ...modules.contribution,
              keyToken: key,
              title: named('Contribution of module outputs', name),
              ...(views.length > 1 && yRange[0] < yRange[1] ? { yRange } : {}),
            },
          },
        ],
  );
  const lens = views.flatMap(([name, { lens }]): FigurePanel[] =>
    lens === undefined
      ? []
      : [
          {
            kind: 'line-chart',
            data: {
              title: named(`Probability of “${key}” after each layer`, name),
              xTitle: 'Layer',
              yTitle: 'Probability',
              yRange: [0, 1],
              series: [{ label: key, x: lens.map(({ layer }) => layer), y: lens.map((one) => one.keyProbability) }],
            },
          },
        ],
  );
  const maps = views.flatMap(([name, view]): FigurePanel[] => {
    const { visual } = view;
    if (visual === undefined || image === undefined) return [];
    const row: HeatMapRow = {
      image,
      grid: visual.grid,
      seen: visual.seen,
      prompt,
      // The text under a picture is its answer, so it stands there only when the model predicts it.
      ...(view.key.predicted ? { answer: key } : {}),
      maps: visual.layers.map(({ layer, patches, carriesWeight }) => ({
        label: `Layer ${layer}`,
        ...(carriesWeight ? { values: patches } : { values: patches.map(() => 0), note: 'no weight' }),
      })),
    };
    return [
      {
        kind: 'heat-maps',
        data: { rows: [row], title: named('Where each layer looks', name), normalise: 'each', floor: rounding },
      },
    ];
  });
  return { panels: [...bars, ...lens, ...maps], columns: views.length };
}

export interface ComparisonAsked {
  readonly queries: readonly { kind: string; prompt: string; image: RgbImage | undefined; target: string | null }[];
}

const localities = new Set<string>(['textLocality', 'modalLocality', ...hardKinds]);
const known = new Set<string>([...queryKinds, ...localities]);

/** What the second model should say; null where nothing is wanted. */
export function wanted(kind: string, target: string | null, before: string): string | null {
  if (!known.has(kind)) return null;
  return localities.has(kind) ? before : (target?.trim() ?? null);
}

export function passed(kind: string, target: string | null, { before, after }: ComparedQuery): boolean | null {
  const should = wanted(kind, target, before.text);
  return should === null ? null : after.text.trim() === should.trim();
}

const spoken = (kind: string): string => kind.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);

/** @throws Error when no query has a picture: the figure shows the edited one */
export function comparisonFigure({ queries }: ComparisonAsked, results: readonly ComparedQuery[]): Figure {
  const edit =
    queries.find(({ kind, image }) => kind === 'reliability' && image !== undefined) ??
    queries.find(({ image }) => image !== undefined);
  if (edit?.image === undefined) throw new Error('a figure of a comparison needs a query with a picture');
  return {
    columns: 1,
    panels: [
      {
        kind: 'before-after',
        data: {
          title: 'Before and after',
          edit: { image: edit.image, prompt: edit.prompt, target: edit.target ?? results[queries.indexOf(edit)]!.after.text },
          rows: queries.map(({ kind, prompt, image, target }, i) => {
            const result = results[i]!;
            return {
              kind: spoken(kind),
              prompt,
              before: result.before.text,
              after: result.after.text,
              passed: passed(kind, target, result) ?? true,
              ...(image === undefined ? {} : { image }),
            };
          }),
        },
      },
    ],
  };
}
