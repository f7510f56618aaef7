/** Attention maps: where each head of each layer looks from the position that the answer is read from. */

import { z } from 'zod';
import { imagesOf } from '../../input/segments.ts';
import { headParts } from '../head-parts.ts';
import { mapsOnPictures } from '../on-pictures.ts';
import { defineTool, endOf, groupsOf, keyOf, layersOf } from './tool.ts';

export const attention = defineTool({
  id: 'attention',
  summary: 'where each head of each layer looks, over the picture and over the words',
  details:
    'The attention probabilities of the position that the answer is read from. The table has the share of each head that lies on the picture. Attention says where a head looks, not whether it matters: see heads and knockout.',
  ofPlaces: true,
  options: z.object({
    layers: z.string().default('all').describe('layers to show, such as 0,2,4 or 2-5, or all'),
    each: z.boolean().default(false).describe('draw a map for each head; otherwise the mean of the heads of a layer'),
  }),
  async run(subject, { layers: given, each }) {
    const { vlm, reading, asked } = subject;
    const key = await keyOf(subject);
    const layers = layersOf(given, vlm.decoder.layers);
    const sequence = reading.batch.sequences[0]!;
    const { picture } = groupsOf(sequence);
    const found = await headParts(vlm, reading, layers, endOf(reading));
    const { heads } = vlm.decoder;
    const rowOf = (data: Float32Array, head: number): Float32Array =>
      data.subarray((head * data.length) / heads, ((head + 1) * data.length) / heads);
    const onPicture = found.map(({ probabilities: { data } }) =>
      Array.from({ length: heads }, (_, head) => {
        const row = rowOf(data, head);
        return picture.reduce((sum, place) => sum + row[place]!, 0);
      }),
    );
    const columns = Array.from({ length: heads }, (_, head) => `${head}`);
    const matrix = { rows: layers.map(String), columns, values: onPicture, what: 'share of the attention on the picture' };
    const maps = await mapsOnPictures(
      vlm,
      sequence,
      imagesOf(asked),
      found.flatMap(({ layer, probabilities: { data } }) => {
        const own = columns.map((_, head) => picture.map((place) => rowOf(data, head)[place]!));
        if (each) return own.map((values, head) => ({ label: `Layer ${layer}, head ${head}`, values }));
        const mean = own[0]!.map((_, i) => own.reduce((sum, row) => sum + row[i]!, 0) / heads);
        return [{ label: `Layer ${layer}`, values: mean }];
      }),
    );
    return {
      key,
      said: [],
      table: {
        head: ['layer', ...columns.map((head) => `head ${head}`)],
        rows: onPicture.map((row, i) => [layers[i]!, ...row.map((share) => share.toFixed(3))]),
      },
      matrix,
      data: {
        tokenIds: sequence.ids,
        layers: found.map(({ layer, probabilities: { data } }, i) => ({
          ...{ layer, onPicture: onPicture[i] },
          heads: columns.map((_, head) => Array.from(rowOf(data, head))),
        })),
      },
      panels: [
        ...(maps.length === 0
          ? []
          : [
              {
                kind: 'heat-maps' as const,
                data: {
                  rows: maps,
                  normalise: 'each' as const,
                  floor: 1e-4,
                  title: 'Attention from the last position',
                  scaleTitle: 'Probability',
                },
              },
            ]),
        {
          kind: 'matrix',
          data: {
            ...{ rows: matrix.rows, columns, values: onPicture, range: [0, 1] },
            ...{
              title: 'Attention on the picture',
              rowTitle: 'Layer',
              columnTitle: 'Head',
              scaleTitle: 'Share of the attention',
            },
          },
        },
      ],
    };
  },
});
