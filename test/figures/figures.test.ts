import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { type ScaleName, scaleColour } from '../../src/figures/colours.ts';
import {
  arrange,
  drawFigure,
  type Figure,
  figureJson,
  heatMaps,
  lineChart,
  moduleBars,
  savePicture,
  scaleNames,
  toPng,
} from '../../src/figures/index.ts';
import { encodePng, fromBase64, toBase64 } from '../../src/figures/png.ts';
import { escapeXml } from '../../src/figures/svg.ts';
import { textWidth, tokenLabel, wrap } from '../../src/figures/text.ts';
import { paperDrawings, paperSamples } from './paper-samples.ts';
import { bump, samples, scene } from './samples.ts';

/** Embedded PNGs by size and pixels: how they are packed may change with the library, what they show may not. */
async function withPixelHashes(svg: string): Promise<string> {
  const uris = [...new Set(svg.match(/data:image\/png;base64,[^"]+/g))];
  for (const uri of uris) {
    const { data, info } = await sharp(Buffer.from(uri.slice(uri.indexOf(',') + 1), 'base64'))
      .raw()
      .toBuffer({ resolveWithObject: true });
    const hash = createHash('sha256').update(data).digest('hex').slice(0, 12);
    svg = svg.replaceAll(uri, `png:${info.width}x${info.height}:${hash}`);
  }
  return svg;
}

// The committed pictures are what a developer looks at: `npx vitest run test/figures -u` renews them.
describe.each(Object.entries({ ...samples, ...paperDrawings }))('figure %s', (name, draw) => {
  test('is the committed picture, twice the same bytes, and can be drawn as PNG', async () => {
    const svg = await draw();
    expect(await draw()).toBe(svg);
    await expect(await withPixelHashes(svg)).toMatchFileSnapshot(`snapshots/${name}.svg`);
    const { width, height } = await sharp(toPng(svg, 1)).metadata();
    expect(svg).toContain(`width="${width}" height="${height}"`);
  });
});

test('a figure kept as JSON draws the same picture', async () => {
  for (const name of ['figure1', 'figure3', 'figure4']) {
    const figure = paperSamples[name]!();
    const text = JSON.stringify(figure, figureJson);
    const again = JSON.parse(text) as Figure;
    expect(JSON.stringify(again, figureJson)).toBe(text);
    const svg = await drawFigure(again);
    expect(svg).toBe(await drawFigure(figure));
    // Charts count their parts from 0, so ids of panels would meet.
    const ids = [...svg.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    const used = [...svg.matchAll(/url\(#([^)]+)\)/g)].map(([, id]) => id);
    expect(used.filter((id) => !ids.includes(id))).toEqual([]);
  }
});

test('a picture named by several maps is kept once', () => {
  const pictures = JSON.stringify(paperSamples.figure4!(), figureJson).match(/"data":"[A-Za-z0-9+/=]{500,}"/g);
  expect(pictures).toHaveLength(3);
});

test('PNG files hold the pixels that were given, whatever they are', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 9 }),
      fc.infiniteStream(fc.nat(255)),
      async (width, height, bytes) => {
        const rgb = Uint8Array.from(bytes.take(3 * width * height));
        const { data, info } = await sharp(await encodePng(width, height, rgb))
          .raw()
          .toBuffer({ resolveWithObject: true });
        expect([info.width, info.height, info.channels]).toEqual([width, height, 3]);
        expect(Uint8Array.from(data)).toEqual(rgb);
        expect(fromBase64(toBase64(rgb))).toEqual(rgb);
      },
    ),
    { numRuns: 30 },
  );
});

test('large pictures shrink to the mean of what they show', async () => {
  const large = { width: 800, height: 400, data: new Uint8Array(800 * 400 * 3).map((_, i) => ((i / 3) % 2 < 1 ? 200 : 100)) };
  const svg = await heatMaps({ rows: [{ image: large, grid: [1, 1], maps: [{ label: 'a', values: [1] }] }] });
  const uri = /data:image\/png;base64,([^"]+)/.exec(svg)![1]!;
  const { data, info } = await sharp(Buffer.from(uri, 'base64')).raw().toBuffer({ resolveWithObject: true });
  expect([info.width, info.height]).toEqual([384, 192]);
  expect(data.reduce((sum, value) => sum + value, 0) / data.length).toBeCloseTo(150, -1);
});

test('text in a PNG is drawn with the shipped font, none of the machine is needed', async () => {
  const svg = (text: string, weight: number) =>
    `<svg xmlns="http://www.w3.org/2000/svg" width="200" height="30"><text x="2" y="20" font-size="16" font-weight="${weight}" font-family="Inter, Arial">${text}</text></svg>`;
  const ink = async (picture: string) => {
    const { data } = await sharp(toPng(picture, 1)).greyscale().raw().toBuffer({ resolveWithObject: true });
    return data.reduce((sum, value) => sum + (255 - value), 0) / 255;
  };
  expect(await ink(svg('', 400))).toBe(0);
  const regular = await ink(svg('Layer 3 σ → ½', 400));
  expect(regular).toBeGreaterThan(100);
  expect(await ink(svg('Layer 3 σ → ½', 600))).toBeGreaterThan(regular * 1.1);
});

test('the colour scales rise in lightness, so they read in grey', () => {
  const lightness = (name: ScaleName, t: number) => {
    const [r, g, b] = scaleColour(name, t).map((channel) => {
      const c = channel / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    }) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  for (const name of scaleNames.filter((one) => one !== 'red-blue')) {
    for (let i = 1; i <= 32; i++) expect(lightness(name, i / 32)).toBeGreaterThan(lightness(name, (i - 1) / 32));
  }
  expect(scaleColour('viridis', -1)).toEqual([0x44, 0x01, 0x54]);
  expect(scaleColour('viridis', 2)).toEqual([0xfd, 0xe7, 0x25]);
});

test('savePicture picks the kind by the ending and leaves no half-written file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-figures-'));
  try {
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>';
    savePicture(join(folder, 'new', 'a.svg'), svg);
    savePicture(join(folder, 'new', 'b.PNG'), svg);
    expect(readFileSync(join(folder, 'new', 'a.svg'), 'utf8')).toBe(svg);
    expect((await sharp(join(folder, 'new', 'b.PNG')).metadata()).format).toBe('png');
    expect(() => savePicture(join(folder, 'c.jpg'), svg)).toThrow(/must end in \.svg or \.png/);
    expect(readdirSync(join(folder, 'new')).sort()).toEqual(['a.svg', 'b.PNG']);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('data that cannot be drawn is refused with its place', async () => {
  await expect(async () => moduleBars({ layers: [0, 1], attn: [1], mlp: [1, 2] })).rejects.toThrow(/2 layers.*1 of attention/);
  await expect(async () => moduleBars({ layers: [0], attn: [Number.NaN], mlp: [1] })).rejects.toThrow(
    /Attention in layer 0 is NaN/,
  );
  const image = scene();
  await expect(heatMaps({ rows: [] })).rejects.toThrow(/at least one map/);
  await expect(heatMaps({ rows: [{ image, grid: [6, 6], maps: [{ label: 'Layer 1', values: [1, 2] }] }] })).rejects.toThrow(
    /36 cells/,
  );
  await expect(
    heatMaps({
      rows: [{ image: { ...image, width: 7 }, grid: [6, 6], maps: [{ label: 'Layer 1', values: bump(6, 6, 0, 0, 1) }] }],
    }),
  ).rejects.toThrow(/needs 756 bytes/);
  await expect(heatMaps({ rows: [{ grid: [1, 1], maps: [{ label: 'a', values: [1] }] }] })).rejects.toThrow(/"a" has no picture/);
  await expect(heatMaps({ rows: [{ image: 3, grid: [1, 1], maps: [{ label: 'a', values: [1] }] }] })).rejects.toThrow(
    /picture 3, but the figure has 0/,
  );
  expect(() => arrange([], {})).toThrow(/at least one panel/);
  await expect(drawFigure({ panels: [{ kind: 'pie', data: {} }] } as unknown as Figure)).rejects.toThrow(
    /no kind of panel "pie"/,
  );
  const line = { xTitle: 'Step', yTitle: 'Loss' };
  await expect(async () => lineChart({ ...line, series: [{ label: 'a', x: [1], y: [1, 2] }] })).rejects.toThrow(
    /1 places and 2 values/,
  );
  await expect(async () => lineChart({ ...line, yScale: 'log', series: [{ label: 'a', x: [1], y: [0] }] })).rejects.toThrow(
    /above 0/,
  );
});

test('a map of rounding errors alone is drawn as nothing', async () => {
  const values = Array.from({ length: 36 }, (_, i) => (i === 5 ? 1e-13 : 0));
  const draw = (floor: number) =>
    heatMaps({ normalise: 'each', floor, rows: [{ image: scene(), grid: [6, 6], maps: [{ label: 'Layer 0', values }] }] });
  expect(await draw(1e-9)).toContain('nothing');
  expect(await draw(0)).not.toContain('nothing');
});

test('constant maps and one single layer can be drawn', async () => {
  const flat = await heatMaps({ rows: [{ image: scene(), grid: [2, 2], maps: [{ label: 'Layer 0', values: [0, 0, 0, 0] }] }] });
  expect(flat).not.toContain('NaN');
  expect(await moduleBars({ layers: [5], attn: [0], mlp: [0] })).not.toContain('NaN');
});

test('text is wrapped to its width, long words broken, tokens readable, markup escaped', () => {
  for (const line of wrap('a rather long sentence with incomprehensibilities in it', 60, 9))
    expect(textWidth(line, 9)).toBeLessThanOrEqual(60);
  expect(wrap('one two three four', 30, 9, { maxLines: 2 }).at(-1)).toMatch(/…$/);
  expect(tokenLabel('▁cat')).toBe('cat');
  expect(tokenLabel(' ')).toBe('" "');
  expect(escapeXml('<a & "b">\u0000')).toBe('&lt;a &amp; &quot;b&quot;&gt;');
});

test('no two ticks of an axis say the same', async () => {
  for (const most of [0.0123, 0.0149, 0.12, 0.149, 0.15, 1.3, 14]) {
    const svg = await moduleBars({ layers: [0, 1, 2], attn: [most, 0, 0], mlp: [0, most / 2, 0], height: 110 });
    const labels = [...svg.matchAll(/text-anchor="end"[^>]*>([^<]+)</g)].map(([, text]) => text);
    expect(labels.length).toBeGreaterThan(2);
    expect(new Set(labels).size, String(labels)).toBe(labels.length);
  }
});
