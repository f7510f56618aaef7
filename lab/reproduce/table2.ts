/**
 * Table 2 of the paper: where VEAD works best. One adapter is trained and evaluated for each insert layer and seed, on E-VQA; the module contributions
 * of the unedited model (Fig. 1) stand beside, since the paper derives the layer from them.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { averageModuleContribution } from '../../src/attribution/dataset-average.ts';
import { type Rows, toCsv, toLatex, toMarkdown } from '../../src/evaluation/tables.ts';
import { lineChart, moduleBars, savePicture } from '../../src/figures/index.ts';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import { readJsonAs } from '../../src/files/schema.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { openRecords } from '../../src/input/records.ts';
import { loadModel } from '../../src/models/load.ts';
import { modelName } from './cells.ts';
import { type VariantOptions, type VariantRow, variantRows, variantTable } from './variants.ts';

export interface Table2Options extends VariantOptions {
  /** insert layers; default: all that have a layer after them */
  readonly layers?: readonly number[] | undefined;
}

export interface Contributions {
  readonly attn: readonly number[];
  readonly mlp: readonly number[];
}

export interface Table2 {
  readonly model: string;
  readonly rows: readonly (VariantRow & { readonly layer: number })[];
  /** mean contribution per layer of the unedited model to the answer it gives */
  readonly contributions: Contributions;
  readonly command: string;
}

/** Resumes by itself: layers that are trained and evaluated in `out` are not done again. */
export async function table2(options: Table2Options): Promise<Table2> {
  const { model, out, command } = options;
  const vlm = loadModel(model, { dtype: options.dtype });
  const layers = options.layers ?? Array.from({ length: vlm.decoder.layers - 1 }, (_, i) => i);
  const { fingerprint } = vlm;
  await vlm.release();
  const found = await variantRows(
    layers.map((layer) => ({ folder: `layer-${layer}`, training: { layer } })),
    undefined,
    options,
  );
  const contributions = await contributionsOf(options, fingerprint);
  const table: Table2 = {
    model: modelName(model),
    rows: found.map((row, i) => ({ layer: layers[i]!, ...row })),
    contributions,
    command,
  };
  writeFileAtomic(join(out, 'table2.json'), `${JSON.stringify(table, null, 1)}\n`);
  writeFileAtomic(join(out, 'table2.md'), toMarkdown(table2Rows(table)));
  writeFileAtomic(join(out, 'table2.tex'), toLatex(table2Rows(table)));
  writeFileAtomic(join(out, 'table2.csv'), toCsv(table2Rows(table)));
  await draw(table, out);
  return table;
}

const knownContributions = z.object({
  fingerprint: z.string(),
  records: z.number(),
  attn: z.array(z.number()),
  mlp: z.array(z.number()),
});

/** Over the first 200 records that are evaluated; kept, since a resumed table needs them again. */
async function contributionsOf(
  { model, out, data, limit, dtype, log }: Table2Options,
  fingerprint: string,
): Promise<Contributions> {
  const path = join(out, 'contributions.json');
  const { records } = openRecords(data.files.vqa!.test, data.images, { limit: Math.min(limit ?? 200, 200) });
  const known = existsSync(path) ? readJsonAs(path, knownContributions) : undefined;
  if (known?.fingerprint === fingerprint && known.records === records.length) return { attn: known.attn, mlp: known.mlp };
  log('Attributing the unedited answers ...');
  const inputs = await Promise.all(
    records.map(async ({ request }) => ({ prompt: request.prompt, image: await decodeImage(request.image) })),
  );
  const vlm = loadModel(model, { dtype });
  const { contribution } = await averageModuleContribution(vlm, inputs);
  await vlm.release();
  const contributions = { attn: [...contribution.attn], mlp: [...contribution.mlp] };
  writeFileAtomic(path, `${JSON.stringify({ fingerprint, records: records.length, ...contributions }, null, 1)}\n`);
  return contributions;
}

/** With the contributions of each layer's attention and MLP beside. */
export function table2Rows({ rows, contributions }: Pick<Table2, 'rows' | 'contributions'>): Rows {
  const table = variantTable(
    'Layer',
    rows.map((row) => ({ name: String(row.layer), row })),
  );
  return {
    head: [...table.head, 'attn contribution', 'MLP contribution'],
    rows: table.rows.map((row, i) => {
      const { layer } = rows[i]!;
      return [...row, contributions.attn[layer]!.toFixed(3), contributions.mlp[layer]!.toFixed(3)];
    }),
    align: [...table.align, 'right', 'right'],
  };
}

async function draw({ model, rows, contributions }: Table2, out: string): Promise<void> {
  const series = (label: string, of: (row: VariantRow) => number) => ({ label, x: rows.map((r) => r.layer), y: rows.map(of) });
  savePicture(
    join(out, 'table2.svg'),
    await lineChart({
      series: [
        series('average', (r) => r.average),
        series('reliability', (r) => r.reliability),
        series('modal generality', (r) => r.modalGenerality),
        series('modal locality', (r) => r.modalLocality),
      ],
      xTitle: 'Insert layer',
      yTitle: 'Token accuracy',
      yFormat: 'percent',
      points: true,
      title: `VEAD on ${model} by insert layer`,
    }),
  );
  savePicture(
    join(out, 'module-contributions.svg'),
    await moduleBars({
      layers: contributions.attn.map((_, i) => i),
      ...contributions,
      title: `Module contributions of ${model}`,
    }),
  );
}
