/** Sizes, tokens, the places of the visual tokens, and pixel values made from picture files. */
import type { Tensor } from '../../src/graph/dtype.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { usualTokens } from '../../src/models/architecture.ts';
import { tolerances } from './checks.ts';
import { pixelsOf, type Subject } from './subject.ts';

export function checkSizes({ fixture: { meta }, vlm, checks }: Subject): void {
  const sizes: [string, number | undefined, number][] = [
    ['layers', meta.layers, vlm.decoder.layers],
    ['hidden_size', meta.hidden_size, vlm.decoder.hidden],
    ['visual_tokens', meta.visual_tokens, usualTokens(vlm.architecture)],
    ['vocab_rows', meta.vocab_rows, vlm.decoder.vocabulary],
  ];
  for (const [name, expected, actual] of sizes) if (expected !== undefined) checks.equal('sizes', name, [actual], [expected]);
}

export function checkTokens({ fixture: { meta }, vlm, checks }: Subject): void {
  for (const [c, { prompt, image, visual_range, prompt_input_ids, sequence_input_ids }] of meta.cases.entries()) {
    if (prompt === undefined) continue;
    const where = `case ${c}`;
    if (prompt_input_ids !== undefined) checks.equal('tokens.prompt', where, vlm.codec.encode(prompt), prompt_input_ids);
    const { ids, spans } = vlm.layout({ prompt, image: image == null ? undefined : vlm.anyPicture });
    const runs = spans.flat();
    if (visual_range !== undefined) checks.equal('tokens.visual-range', where, runs.flat(), visual_range ?? []);
    if (sequence_input_ids === undefined) continue;
    const [start, end] = runs[0] ?? [ids.length, ids.length];
    const before = ids.slice(0, start);
    const after = ids.slice(end);
    checks.equal(
      'tokens.sequence',
      where,
      [...before, ...after],
      textOf(sequence_input_ids, before.length, after.length, end - start),
    );
  }
}

/** The text tokens of the reference's input: its segments one after the other, without image placeholders (one for all, or one each). */
function textOf(segments: readonly (readonly number[])[], before: number, after: number, visual: number): number[] {
  const all = segments.flat();
  const placeholders = all.length - before - after;
  if (segments.length > 1 || (placeholders !== 1 && placeholders !== visual)) return all;
  const held = all.slice(before, before + placeholders);
  return held.every((id) => id === held[0]) ? [...all.slice(0, before), ...all.slice(before + placeholders)] : all;
}

export async function checkPixels({ fixture, processor, checks }: Subject): Promise<void> {
  const { greyMean, greyShare, greyLevels } = tolerances;
  for (const [c, { images }] of fixture.meta.cases.entries()) {
    const expected = images.length === 0 ? undefined : fixture.tensor(`${c}.pixel_values`);
    if (expected === undefined) continue;
    const pictures = await Promise.all(images.map((file) => fixture.picture(file)));
    const own = pictures.map((picture) => pixelsOf(processor(picture, images.length)));
    const total = own.reduce((sum, { data }) => sum + data.length, 0);
    const inner = own[0]!.shape.slice(1);
    if (total !== expected.data.length || inner.some((size, i) => size !== expected.shape.at(i - inner.length))) {
      const shapes = own.map(({ shape }) => `[${shape.join(', ')}]`).join(' and ');
      checks.fail('pixels.mean', `case ${c}: ${shapes}, [${expected.shape.join(', ')}] expected`, greyMean);
      continue;
    }
    let at = 0;
    own.forEach((pixels, i) => {
      const wanted = expected.data.subarray(at, at + pixels.data.length);
      at += pixels.data.length;
      const levels = levelsOf((image) => pixelsOf(processor(image, images.length)), pictures[i]!, pixels.shape);
      const { mean, share } = greyDifference(pixels, wanted, levels, greyLevels);
      const where = images.length === 1 ? `case ${c}` : `case ${c}, picture ${i + 1}`;
      checks.add('pixels.mean', greyMean, where, mean);
      checks.add('pixels.share', greyShare, where, share);
    });
  }
}

/** Values of one channel that stand side by side: of a picture [.., 3, h, w] h w, of a patch [.., 3 t p p] a third. */
const planeOf = (shape: readonly number[]): number => (shape.length > 2 ? shape.at(-2)! * shape.at(-1)! : shape.at(-1)! / 3);

/** Grey levels per unit of a pixel value, by channel: what the processor makes of black and of white tells. */
function levelsOf(read: (image: RgbImage) => Tensor<'float32'>, { width, height }: RgbImage, shape: readonly number[]): number[] {
  const uniform = (level: number) => read({ width, height, data: new Uint8Array(3 * width * height).fill(level) }).data;
  const [black, white] = [uniform(0), uniform(255)];
  const plane = planeOf(shape);
  const largest = [0, 0, 0];
  // Margins are as they are in both.
  for (let i = 0; i < black.length; i++) {
    const channel = Math.floor(i / plane) % 3;
    largest[channel] = Math.max(largest[channel]!, white[i]! - black[i]!);
  }
  return largest.map((difference) => 255 / difference);
}

/** Mean absolute difference, and the share of pixels with a channel further off than `limit`, in grey levels. */
function greyDifference(
  { data, shape }: Tensor<'float32'>,
  expected: Float32Array,
  levels: readonly number[],
  limit: number,
): { mean: number; share: number } {
  const plane = planeOf(shape);
  const pixels = data.length / 3;
  let total = 0;
  let far = 0;
  for (let i = 0; i < pixels; i++) {
    const first = 3 * plane * Math.floor(i / plane) + (i % plane);
    let worst = 0;
    for (let c = 0; c < 3; c++) {
      const at = first + c * plane;
      const d = Math.abs(data[at]! - expected[at]!) * levels[c]!;
      total += d;
      worst = Math.max(worst, d);
    }
    if (!(worst <= limit)) far++;
  }
  return { mean: total / (3 * pixels), share: far / pixels };
}
