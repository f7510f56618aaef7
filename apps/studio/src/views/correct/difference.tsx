/** Where the answer looks before and after the correction, and the difference, layer by layer. */
import { Group, Slider, Text } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useMemo, useState } from 'react';
import { heatMaps } from 'visedit/figures';
import type { Question } from '../../api/ask.ts';
import type { Progress } from '../../api/client.ts';
import { usePicture } from '../../api/pictures.ts';
import { useMaps } from '../../api/queries.ts';
import { alter, usePlace } from '../../app/location.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { ColourScale, endsOf, evenEnds, HeatMap } from '../../parts/heat-map.tsx';
import { Failed, Waiting } from '../../parts/states.tsx';

export function Difference({ question, revision, picture }: { question: Question; revision: number; picture: string }) {
  const [progress, setProgress] = useState<Progress>();
  const client = useQueryClient();
  const asked = useMemo(() => ({ ...question, answer: [], position: 0, before: true }), [question]);
  const found = useMaps(asked, revision, setProgress);
  const image = usePicture(picture);
  const { params } = usePlace();
  const [moved, move] = useState<number>();

  const data = useMemo(() => {
    const [before, after] = [found.data?.before?.visual, found.data?.visual];
    if (before === undefined || after === undefined) return undefined;
    return after.layers.map(({ layer, patches }, i) => {
      const old = before.layers[i]!.patches;
      return { layer, before: old, after: patches, difference: patches.map((value, at) => value - old[at]!) };
    });
  }, [found.data]);

  if (found.isError)
    return <Failed what="The heat maps cannot be compared." error={found.error} retry={() => void found.refetch()} />;
  if (data === undefined || image.data === undefined || found.data?.visual === undefined)
    return (
      <section className="card">
        <h2>What changed in where it looks</h2>
        <Waiting
          what="Reading both"
          query={found}
          progress={progress}
          stop={() => void client.cancelQueries({ queryKey: ['maps'] })}
        />
      </section>
    );
  const { grid, seen } = found.data.visual;
  const sizes = data.map(({ difference }) => evenEnds(difference)[1]);
  const most = sizes.indexOf(Math.max(...sizes));
  const wanted = params.get('layer') === null ? most : data.findIndex(({ layer }) => layer === Number(params.get('layer')));
  const at = Math.min(Math.max(0, moved ?? wanted), data.length - 1);
  const { layer, before, after, difference } = data[at]!;
  const ends = endsOf(before, after);
  const even = evenEnds(difference);
  const columns = grid[1];
  return (
    <section className="card" aria-label="What changed in where it looks">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>What changed in where it looks</h2>
        <ExportMenu
          name="difference"
          svg={() =>
            heatMaps({
              title: 'Before and after',
              perLine: 6,
              rows: (['before', 'after'] as const).map((side) => ({
                image: image.data!.pixels,
                grid,
                seen,
                caption: side === 'before' ? 'Before' : 'After',
                maps: data.map((one) => ({ label: `Layer ${one.layer}`, values: one[side] })),
              })),
            })
          }
          csv={() => ({
            head: ['layer', 'row', 'column', 'before', 'after', 'difference'],
            rows: data.flatMap((one) =>
              one.after.map((value, i) => [
                one.layer,
                Math.floor(i / columns) + 1,
                (i % columns) + 1,
                one.before[i],
                value,
                one.difference[i],
              ]),
            ),
          })}
          json={() => ({ question, grid, layers: data })}
        />
      </Group>
      <Text size="sm" c="dimmed" mb="sm">
        For the first word of the answer. Red patches matter more now, blue ones less. Layers before the correction’s own do not
        change.
      </Text>
      <div className="three">
        {(
          [
            ['Before', before, ends, 'viridis'],
            ['After', after, ends, 'viridis'],
            ['Difference', difference, even, 'red-blue'],
          ] as const
        ).map(([title, values, range, colours]) => (
          <div key={title}>
            <h3>{title}</h3>
            <HeatMap
              seen={seen}
              picture={image.data!}
              grid={grid}
              values={values}
              ends={range}
              colours={colours}
              label={`${title}, layer ${layer}`}
            />
            <ColourScale ends={range} colours={colours} title={title === 'Difference' ? 'After less before' : 'Contribution'} />
          </div>
        ))}
      </div>
      <Group className="player" wrap="nowrap" mt="md">
        <Slider
          className="layer-slider"
          min={0}
          max={data.length - 1}
          value={at}
          label={(i) => `Layer ${data[i]?.layer}`}
          onChange={move}
          onChangeEnd={(i) => {
            move(undefined);
            alter({ layer: data[i]!.layer });
          }}
          thumbLabel="Layer"
        />
        <Text size="sm" w={64} ta="right" fw={600}>
          Layer {layer}
        </Text>
      </Group>
    </section>
  );
}
