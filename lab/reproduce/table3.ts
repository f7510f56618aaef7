/**
 * Table 3 of the paper: what each part of VEAD and each of its losses is for. Every row is VEAD trained without it on E-VQA (LLaVA in the paper):
 * without a loss of the influence mapper (Eq. 21, 22, 24), without the influence mapper (the gate is 1), without the cross-attention (visual tokens
 * pass through the adapter's own maps; of the edit only the gate is left).
 */
import { join } from 'node:path';
import type { Settings } from '../../src/editors/editor.ts';
import { type Rows, toCsv, toLatex, toMarkdown } from '../../src/evaluation/tables.ts';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import { modelName } from './cells.ts';
import { type VariantOptions, type VariantRow, variantRows, variantTable } from './variants.ts';

/** In the paper's order. */
export const ablations = {
  full: { name: 'VEAD', settings: {} },
  'no-im-down': { name: '− ℓ_im↓', settings: { lossDown: false } },
  'no-im-up': { name: '− ℓ_im↑', settings: { lossUp: false } },
  'no-ima': { name: '− ℓ_ima', settings: { lossAttribution: false } },
  'no-im': { name: '− IM', settings: { influenceMapper: false } },
  'no-ca': { name: '− CA', settings: { crossAttention: false } },
} as const satisfies Record<string, { name: string; settings: Settings }>;

export type Ablation = keyof typeof ablations;
export const ablationNames = Object.keys(ablations) as Ablation[];

export interface Table3 {
  readonly model: string;
  readonly rows: readonly (VariantRow & { readonly ablation: Ablation })[];
  readonly command: string;
}

/** Resumes by itself: what is trained and evaluated in `out` is not done again. */
export async function table3(options: VariantOptions): Promise<Table3> {
  const { out, command } = options;
  const found = await variantRows(
    ablationNames.map((name) =>
      name === 'full' ? { training: {} } : { folder: name, training: { settings: ablations[name].settings } },
    ),
    0,
    options,
  );
  const model = modelName(options.model);
  const table: Table3 = { model, rows: found.map((row, i) => ({ ablation: ablationNames[i]!, ...row })), command };
  writeFileAtomic(join(out, 'table3.json'), `${JSON.stringify(table, null, 1)}\n`);
  writeFileAtomic(join(out, 'table3.md'), toMarkdown(table3Rows(table)));
  writeFileAtomic(join(out, 'table3.tex'), toLatex(table3Rows(table)));
  writeFileAtomic(join(out, 'table3.csv'), toCsv(table3Rows(table)));
  return table;
}

export const table3Rows = ({ rows }: Pick<Table3, 'rows'>): Rows =>
  variantTable(
    'Settings',
    rows.map((row) => ({ name: ablations[row.ablation].name, row })),
  );
