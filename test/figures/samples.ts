/** Small made-up figures: the tests' snapshots, and what a developer looks at when the look changes. */
import { beforeAfter, heatMaps, lineChart, moduleBars, type Pixels } from '../../src/figures/index.ts';

/** A ground with two blobs, so that it shows which way is up. */
export function scene(width = 36, height = 36, ground: readonly [number, number, number] = [120, 150, 190]): Pixels {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const red = Math.hypot(x - width / 4, y - height / 4) < width / 5;
      const yellow = Math.abs(x - (3 * width) / 4) < width / 6 && Math.abs(y - (3 * height) / 4) < height / 8;
      data.set(red ? [200, 50, 40] : yellow ? [240, 200, 60] : ground, 3 * (y * width + x));
    }
  }
  return { width, height, data };
}

/** A bump around a cell of a grid. */
export function bump(rows: number, columns: number, row: number, column: number, height: number): Float32Array {
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const distance = Math.hypot(Math.floor(i / columns) - row, (i % columns) - column);
    return height * Math.exp((-distance * distance) / 2) + 0.01 * (i % 3);
  });
}

const rise = (n: number, peak: number) =>
  Array.from({ length: n }, (_, i) => 0.45 * Math.exp(-((i - peak) ** 2) / (n / 1.5)) + 0.01);

export const samples: Record<string, () => Promise<string>> = {
  'module-bars': () =>
    moduleBars({
      layers: [0, 1, 2, 3, 4, 5, 6, 7],
      attn: rise(8, 6),
      mlp: rise(8, 7),
      title: 'Module contributions, mini-llava',
      keyToken: '▁lion',
      markLayer: 4,
    }),
  'module-bars-32': () =>
    moduleBars({
      layers: Array.from({ length: 32 }, (_, i) => i),
      attn: rise(32, 24).map((v, i) => (i === 3 ? -v * 6 : v)),
      mlp: rise(32, 29),
    }),
  'heat-maps': () =>
    heatMaps({
      title: 'Which regions the attention reads',
      scaleTitle: 'Visual contribution',
      rows: [
        {
          image: scene(),
          grid: [6, 6],
          prompt: 'What is at the top left? The answer is:',
          answer: 'ball',
          maps: [0, 2, 4, 6, 7].map((layer) => ({ label: `Layer ${layer}`, values: bump(6, 6, 1, 1, layer / 10) })),
        },
      ],
    }),
  'heat-maps-each': () =>
    heatMaps({
      normalise: 'each',
      colours: 'red-blue',
      scaleTitle: 'Gate',
      perLine: 2,
      rows: [
        {
          label: 'Edited',
          image: scene(),
          grid: [6, 6],
          maps: [1, 2].map((i) => ({ label: `Map ${i}`, values: bump(6, 6, i, 1, i / 200) })),
        },
        {
          label: 'Queried',
          image: scene(36, 24, [90, 160, 110]),
          grid: [4, 6],
          maps: [1, 2].map((i) => ({ label: `Map ${i}`, values: bump(4, 6, 3, 4, i) })),
        },
      ],
    }),
  'line-chart': () =>
    lineChart({
      title: 'Average of the five metrics by insert layer',
      xTitle: 'Insert layer',
      yTitle: 'Average',
      yFormat: 'percent',
      yRange: [0.7, 1],
      series: [
        { label: 'mini E-VQA', x: [0, 2, 4, 6], y: [0.85, 0.9, 0.96, 0.8], spread: [0.02, 0.01, 0.01, 0.03] },
        { label: 'mini E-IC', x: [0, 2, 4, 6], y: [0.8, 0.88, 0.93, 0.75] },
      ],
      marks: [{ x: 4, label: 'suggested' }],
    }),
  'training-curve': () =>
    lineChart({
      xTitle: 'Step',
      yTitle: 'Loss',
      yScale: 'log',
      series: [
        {
          label: 'loss',
          x: Array.from({ length: 60 }, (_, i) => i * 500),
          y: Array.from({ length: 60 }, (_, i) => 4 * Math.exp(-i / 12) + 0.02 + 0.01 * (i % 3)),
        },
      ],
    }),
  'before-after': () =>
    beforeAfter({
      title: 'One edit, five queries',
      edit: { image: scene(), prompt: 'What is at the top left? The answer is:', target: 'lion' },
      rows: [
        {
          kind: 'Reliability',
          wanted: 'must be the target',
          image: scene(),
          prompt: 'What is at the top left? The answer is:',
          before: 'tiger',
          after: 'lion',
          passed: true,
        },
        {
          kind: 'Text generality',
          wanted: 'must be the target',
          image: scene(),
          prompt: 'Which thing do you see in the upper left corner? The answer is:',
          before: 'tiger',
          after: 'lion',
          passed: true,
        },
        {
          kind: 'Modal generality',
          wanted: 'must be the target',
          image: scene(36, 36, [150, 120, 160]),
          prompt: 'What is at the top left? The answer is:',
          before: 'tiger',
          after: 'tiger',
          passed: false,
        },
        {
          kind: 'Text locality',
          wanted: 'must stay',
          prompt: 'What kind of thing is a cat?',
          before: 'animal',
          after: 'animal',
          passed: true,
        },
        {
          kind: 'Modal locality',
          wanted: 'must stay',
          image: scene(36, 36, [90, 160, 110]),
          prompt: 'Describe the picture.',
          before: 'a cat, a dog and a car on green',
          after: 'a cat, a dog and a car on green',
          passed: true,
        },
      ],
    }),
};
