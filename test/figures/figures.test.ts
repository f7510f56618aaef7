import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { type ScaleName, scaleColour } from '../../src/figures/colours.ts';
import { heatMaps, lineChart, moduleBars, savePicture, scaleNames, toPng } from '../../src/figures/index.ts';
import { escapeXml } from '../../src/figures/svg.ts';
import { textWidth, tokenLabel, wrap } from '../../src/figures/text.ts';
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
describe.each(Object.entries(samples))('figure %s', (name, draw) => {
  test('is the committed picture, twice the same bytes, and can be drawn as PNG', async () => {
    const svg = await draw();
    expect(await draw()).toBe(svg);
    await expect(await withPixelHashes(svg)).toMatchFileSnapshot(`snapshots/${name}.svg`);
    const { width, height } = await sharp(toPng(svg, 1)).metadata();
    expect(svg).toContain(`width="${width}" height="${height}"`);
  });
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
  const line = { xTitle: 'Step', yTitle: 'Loss' };
  await expect(async () => lineChart({ ...line, series: [{ label: 'a', x: [1], y: [1, 2] }] })).rejects.toThrow(
    /1 places and 2 values/,
  );
  await expect(async () => lineChart({ ...line, yScale: 'log', series: [{ label: 'a', x: [1], y: [0] }] })).rejects.toThrow(
    /above 0/,
  );
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
