/** Bars: how much each layer's attention and MLP output speaks for the word. */
import { Group, Text } from '@mantine/core';
import { useRef } from 'react';
import { moduleBars } from 'visedit/figures';
import type { Attribution, ModuleValues } from '../../api/types.ts';
import { alter } from '../../app/location.ts';
import { ExportMenu } from '../../parts/export.tsx';
import { Figure } from '../../parts/figure.tsx';
import { focus, useFocusMark } from '../../parts/focus.ts';
import { shortNumber, tokenText } from '../../parts/words.ts';

type Props = { found: Attribution; modules: { contribution: ModuleValues; prob: ModuleValues & { layer: number[] } } };

export function Modules({ found: { layers, key, prompt, model }, modules }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const bars = useRef<{ layer: number; element: Element }[]>([]);
  const status = useRef<HTMLParagraphElement>(null);
  const { attn, mlp } = modules.contribution;
  const figure = { layers, attn, mlp, keyToken: tokenText(key.text) };

  useFocusMark(({ layer }) => {
    const known = layer !== undefined && layers.includes(layer);
    for (const bar of bars.current) bar.element.classList.toggle('dim', known && bar.layer !== layer);
    const at = known ? layers.indexOf(layer) : -1;
    status.current!.textContent = known
      ? `Layer ${layer}: attention ${shortNumber(attn[at]!)}, MLP ${shortNumber(mlp[at]!)}; after it ${tokenText(key.text)} has ${(100 * modules.prob.layer[at]!).toFixed(1)} %.`
      : 'Point at a layer, here or in the table.';
  });
  const layerAt = (target: EventTarget): number | undefined => bars.current.find(({ element }) => element === target)?.layer;

  return (
    <section className="card" aria-label="Which layers speak for the word">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <h2>Which layers speak for it</h2>
        <ExportMenu
          name="module-contributions"
          svg={() => moduleBars({ ...figure, title: 'Contribution of module outputs' })}
          csv={() => ({
            head: ['layer', 'attention', 'mlp', 'probability after the layer'],
            rows: layers.map((layer, i) => [layer, attn[i], mlp[i], modules.prob.layer[i]]),
          })}
          json={() => ({ model, prompt, key, layers, ...modules })}
        />
      </Group>
      <Text size="sm" c="dimmed" mb="xs">
        Each layer adds two things to what the model is thinking: <b>attention</b> carries over what other places know, the{' '}
        <b>MLP</b> adds what the model has learned. High bars speak for the word; bars below the line speak against it.
      </Text>
      {/* biome-ignore lint/a11y/useKeyWithClickEvents lint/a11y/noStaticElementInteractions: the table below does the same by keyboard */}
      <div
        ref={frame}
        className="bars"
        onPointerOver={(event) => focus.setState({ layer: layerAt(event.target) })}
        onPointerLeave={() => focus.setState({ layer: undefined })}
        onClick={(event) => {
          const layer = layerAt(event.target);
          if (layer !== undefined) alter({ layer });
        }}
      >
        <Figure
          label={`Contribution of attention and MLP of ${layers.length} layers to ${tokenText(key.text)}`}
          of={key.id + JSON.stringify(attn)}
          draw={(width) => moduleBars({ ...figure, width, height: 180 })}
          onDrawn={(element) => {
            bars.current = [...element.querySelectorAll('[aria-roledescription="bar"]')].flatMap((bar) => {
              const layer = /^layer: (\d+)/i.exec(bar.getAttribute('aria-label') ?? '')?.[1];
              return layer === undefined ? [] : [{ layer: Number(layer), element: bar }];
            });
          }}
        />
      </div>
      <p ref={status} className="reading" />
    </section>
  );
}
