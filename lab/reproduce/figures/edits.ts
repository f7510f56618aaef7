/** Edits that figures 3, 4, 8 and 9 look into: VEAD on records of the mini E-VQA whose asked cell is known. */

import type { Box } from '../../../src/attribution/map-measures.ts';
import type { Edit, EditorWeights, EditRequest } from '../../../src/editors/editor.ts';
import { shippedWeights, weightsFor } from '../../../src/editors/shipped.ts';
import { vead } from '../../../src/editors/vead/vead.ts';
import { type FileId, fileId } from '../../../src/evaluation/manifest.ts';
import { decodeImage } from '../../../src/input/image/decode.ts';
import type { EditRecord } from '../../../src/input/records.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import type { FigureOptions } from './figure.ts';
import { figureRecords } from './scenes.ts';

export interface EditCase {
  readonly record: EditRecord;
  readonly edit: Edit;
  readonly box: Box | undefined;
  readonly plain: boolean;
  readonly edited: RgbImage;
  readonly rephrased: RgbImage;
  readonly unrelated: RgbImage;
}

export interface EditCases {
  readonly weights: EditorWeights;
  readonly files: readonly FileId[];
  readonly cases: readonly EditCase[];
}

/** The first records that `wanted` lets pass, edited one by one. */
export async function editCases(
  vlm: Vlm,
  options: FigureOptions,
  count: number,
  wanted: (record: EditRecord, box: Box | undefined) => boolean,
): Promise<EditCases> {
  const path = options.weights ?? shippedWeights(options.models?.[0] ?? vlm.name, vead.id, 'vqa');
  const weights = weightsFor(vlm, vead, path)!;
  const { records, box, plain } = await figureRecords(options, 4 * count);
  const known = records.some((record) => box(record) !== undefined);
  const chosen = records
    .map((record) => ({ record, box: box(record) }))
    // Records of other data have no known cells, and none can be asked for there.
    .filter(({ record, box }) => wanted(record, box) && (box !== undefined || !known))
    .slice(0, count);
  if (chosen.length === 0) throw new Error('no record fits this figure; give more of them with --world and --limit');
  const cases = await Promise.all(
    chosen.map(async ({ record, box }) => {
      const { request, queries } = record;
      const [edited, rephrased, unrelated] = await Promise.all(
        [request.image, queries.modalGenerality.image!, queries.modalLocality.image!].map((path) => decodeImage(path)),
      );
      return { record, box, plain: plain(record), edited: edited!, rephrased: rephrased!, unrelated: unrelated! };
    }),
  );
  const requests = cases.map(
    ({ record: { request }, edited }): EditRequest => ({ image: edited, prompt: request.prompt, target: request.target }),
  );
  const edits = await vead.edit(vlm, requests, weights);
  return { weights, files: [fileId(path)], cases: cases.map((one, i) => ({ ...one, edit: edits[i]! })) };
}
