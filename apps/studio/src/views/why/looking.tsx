/** Where each layer looks: a heat map over the picture, a slider and a film through the layers, one patch through all of them. */
import { Button, Group, SegmentedControl, Slider, Text } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { useEffect, useMemo, useRef, useState } from 'react';
import { heatMaps } from 'visedit/figures';
import { useStore } from 'zustand';
import { usePicture } from '../../api/pictures.ts';
import type { VisualMaps } from '../../api/types.ts';
import { alter, usePlace } from '../../app/location.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { focus } from '../../parts/focus.ts';
import { ColourScale, endsOf, HeatMap } from '../../parts/heat-map.tsx';
import { BothWays, Failed, Waiting } from '../../parts/states.tsx';
import { Film, Profile } from './film.tsx';
import type { TokenMaps } from './why.tsx';

const secondsPerLayer = 0.7;

interface LookingProps {
  /** Tokens of one picture see each other in both directions. */
  bothWays: boolean;
  picture: string;
  maps: TokenMaps;
  /** Shown where the address names no layer. */
  loudest: number | undefined;
  position: number;
  words: readonly string[];
}

export function Looking({ bothWays, picture, maps, loudest, position, words }: LookingProps) {
  const pointed = useStore(focus, ({ token }) => token);
  const shown = pointed !== undefined && maps.visual[pointed] !== undefined ? pointed : position;
  const visual = maps.visual[shown];
  return (
    <section className="card" aria-label="Where it looks">
      {bothWays && <BothWays />}
      {visual !== undefined ? (
        <Maps picture={picture} visual={visual} loudest={loudest} word={words[shown] ?? ''} />
      ) : (
        <>
          <h2>Where it looks</h2>
          {maps.error !== undefined ? (
            <Failed what="The heat maps cannot be made." error={maps.error} retry={maps.refetch} />
          ) : (
            <Waiting
              what="Changing one patch at a time and watching what the model makes of it"
              query={maps}
              progress={maps.progress}
              stop={maps.stop}
            />
          )}
        </>
      )}
    </section>
  );
}

function Maps({
  picture,
  visual,
  loudest,
  word,
}: {
  picture: string;
  visual: VisualMaps;
  loudest: number | undefined;
  word: string;
}) {
  const found = usePicture(picture);
  const { params } = usePlace();
  const pointedLayer = useStore(focus, ({ layer }) => layer);
  const layers = useMemo(() => visual.layers.map(({ layer }) => layer), [visual]);
  const wanted = params.get('layer') === null ? (loudest ?? layers.at(-1)!) : Number(params.get('layer'));
  const [chosen, choose] = useState(wanted);
  useEffect(() => choose(wanted), [wanted]);
  const [playing, play] = useState(false);
  const [scale, setScale] = useState<'each' | 'all'>('each');
  const [opacity, setOpacity] = useState(0.85);
  const known =
    pointedLayer !== undefined && layers.includes(pointedLayer) ? pointedLayer : layers.includes(chosen) ? chosen : layers[0]!;
  const map = visual.layers[layers.indexOf(known)]!;
  const allEnds = useMemo(() => endsOf(...visual.layers.map(({ patches }) => patches)), [visual]);
  const ends = useMemo(() => (scale === 'all' ? allEnds : endsOf(map.patches)), [scale, allEnds, map]);

  const step = (by: number) => {
    const next = layers[Math.min(layers.length - 1, Math.max(0, layers.indexOf(known) + by))]!;
    choose(next);
    alter({ layer: next });
  };
  const newest = useRef({ known, layers });
  newest.current = { known, layers };
  useEffect(() => {
    if (!playing) return;
    const timer = setInterval(() => {
      const { known: now, layers: all } = newest.current;
      choose(all[(all.indexOf(now) + 1) % all.length]!);
    }, 1000 * secondsPerLayer);
    return () => clearInterval(timer);
  }, [playing]);
  const stop = () => {
    play(false);
    alter({ layer: newest.current.known });
  };
  useHotkeys([
    ['p', () => (playing ? stop() : play(true))],
    ['[', () => step(-1)],
    [']', () => step(1)],
  ]);

  const name = `heat-maps-${word.replace(/[^\p{L}\p{N}]+/gu, '-') || 'token'}`;
  const [rows, columns] = visual.grid;
  return (
    <>
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>Where it looks for “{word}”</h2>
        <ExportMenu
          name={name}
          svg={() =>
            heatMaps({
              title: `Where each layer looks for “${word}”`,
              normalise: scale,
              perLine: 6,
              rows: [
                {
                  image: found.data!.pixels,
                  grid: visual.grid,
                  seen: visual.seen,
                  maps: visual.layers.map(({ layer, patches, carries_weight }) => ({
                    label: `Layer ${layer}`,
                    ...(carries_weight ? { values: patches } : { values: patches.map(() => 0), note: 'no weight' }),
                  })),
                },
              ],
            })
          }
          csv={() => ({
            head: ['layer', 'row', 'column', 'contribution'],
            rows: visual.layers.flatMap(({ layer, patches }) =>
              patches.map((value, i) => [layer, Math.floor(i / columns) + 1, (i % columns) + 1, value]),
            ),
          })}
          json={() => ({ word, ...visual })}
        />
      </Group>
      <Text size="sm" c="dimmed" mb="xs">
        The brighter a patch, the more this layer’s reading of the picture changes when that patch is disturbed. Point at a patch
        to follow it through all layers.
      </Text>
      {found.data && (
        <HeatMap
          picture={found.data}
          grid={visual.grid}
          seen={visual.seen}
          values={map.carries_weight ? map.patches : undefined}
          ends={ends}
          opacity={opacity}
          label={`Heat map of layer ${known} for ${word}`}
        />
      )}
      <Group className="player" wrap="nowrap" gap="sm">
        <Button size="xs" variant="light" onClick={() => (playing ? stop() : play(true))} w={72}>
          {playing ? 'Stop' : 'Play'}
        </Button>
        <Slider
          className="layer-slider"
          min={0}
          max={layers.length - 1}
          value={layers.indexOf(known)}
          label={(at) => `Layer ${layers[at]}`}
          onChange={(at) => choose(layers[at]!)}
          onChangeEnd={(at) => alter({ layer: layers[at] })}
          thumbLabel="Layer"
        />
        <Text size="sm" w={64} ta="right" fw={600}>
          Layer {known}
        </Text>
      </Group>
      <Text size="sm" mt="xs" role="status">
        {!map.carries_weight
          ? 'This layer does not read the picture here: changing all patches would not turn its output by two degrees.'
          : map.converged
            ? ''
            : `This map is not sure: its largest error is ${Math.round(100 * map.error)} % of its largest value.`}
      </Text>
      <Group gap="sm" mt="xs" wrap="nowrap">
        <Text size="sm">Colours</Text>
        <Slider
          flex={1}
          min={0}
          max={1}
          step={0.05}
          value={opacity}
          onChange={setOpacity}
          label={(value) => `${Math.round(100 * value)} %`}
          thumbLabel="How much the colours cover the picture"
        />
      </Group>
      <Group justify="space-between" align="flex-end" mt="sm">
        <ColourScale
          ends={ends}
          title={
            scale === 'each'
              ? 'Turn of this layer’s output, (1 − cos) / 2'
              : 'Turn of the output, (1 − cos) / 2, all layers alike'
          }
        />
        <SegmentedControl
          size="xs"
          aria-label="Colours"
          value={scale}
          onChange={(value) => setScale(value as 'each' | 'all')}
          data={[
            { value: 'each', label: 'This layer' },
            { value: 'all', label: 'All layers alike' },
          ]}
        />
      </Group>
      <Film
        visual={visual}
        selected={known}
        ends={scale === 'all' ? allEnds : undefined}
        onSelect={(layer) => alter({ layer })}
      />
      <Profile visual={visual} rows={rows} columns={columns} />
    </>
  );
}
