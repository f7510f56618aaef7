/** Sizes, tokens, the places of the visual tokens, and pixel values made from picture files. */
import type { Tensor } from '../../src/graph/dtype.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { usualTokens } from '../../src/models/architecture.ts';
import { tolerances } from './checks.ts';
import type { Subject } from './subject.ts';

export function checkSizes({ fixture: { meta }, vlm, checks }: Subject): void {
  const sizes: [string, number | undefined, number][] = [
    ['layers', meta.layers, vlm.decoder.layers],
    ['hidden_size', meta.hidden_size, vlm.decoder.hidden],
    ['visual_tokens', meta.visual_tokens, usualTokens(vlm.architecture)],
  ];
  for (const [name, expected, actual] of sizes) if (expected !== undefined) checks.equal('sizes', name, [actual], [expected]);
}

export function checkTokens({ fixture: { meta }, vlm, checks }: Subject): void {
  for (const [c, { prompt, image, visual_range, prompt_input_ids, sequence_input_ids }] of meta.cases.entries()) {
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
  for (const [c, { image }] of fixture.meta.cases.entries()) {
    const expected = image == null ? undefined : fixture.tensor(`${c}.pixel_values`);
    if (image == null || expected === undefined) continue;
    const actual = processor(await fixture.picture(image));
    if (actual.shape.join() !== expected.shape.join()) {
      checks.fail('pixels.mean', `case ${c}: [${actual.shape.join(', ')}], [${expected.shape.join(', ')}] expected`, greyMean);
      continue;
    }
    const { mean, share } = greyDifference(actual, expected, levelsOf(processor, actual.shape), greyLevels);
    checks.add('pixels.mean', greyMean, `case ${c}`, mean);
    checks.add('pixels.share', greyShare, `case ${c}`, share);
  }
}

/** Grey levels per unit of a pixel value, by channel: what the processor makes of black and of white tells. */
function levelsOf(processor: Subject['processor'], [, height, width]: readonly number[]): number[] {
  const uniform = (level: number): RgbImage => ({
    width: width!,
    height: height!,
    data: new Uint8Array(3 * width! * height!).fill(level),
  });
  const black = processor(uniform(0)).data;
  const white = processor(uniform(255)).data;
  const middle = Math.floor((height! * width!) / 2);
  return [0, 1, 2].map((channel) => {
    const at = channel * height! * width! + middle;
    return 255 / (white[at]! - black[at]!);
  });
}

/** Mean absolute difference, and the share of pixels with a channel further off than `limit`, in grey levels. */
function greyDifference(
  a: Tensor<'float32'>,
  b: Tensor<'float32'>,
  levels: readonly number[],
  limit: number,
): { mean: number; share: number } {
  const plane = a.data.length / 3;
  let total = 0;
  let far = 0;
  for (let i = 0; i < plane; i++) {
    let worst = 0;
    for (let c = 0; c < 3; c++) {
      const d = Math.abs(a.data[c * plane + i]! - b.data[c * plane + i]!) * levels[c]!;
      total += d;
      worst = Math.max(worst, d);
    }
    if (!(worst <= limit)) far++;
  }
  return { mean: total / (3 * plane), share: far / plane };
}
