/** The conformance fixtures as tests read them: every model that has expected values, its cases and tensors. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSafetensors, type SafetensorsFile } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';

interface Lens {
  token_id: number;
  prob: Record<'attn' | 'mlp' | 'layer', number[]>;
  logit: Record<'attn' | 'mlp' | 'layer', number[]>;
  contribution: Record<'attn' | 'mlp', number[]>;
}

export interface Case {
  prompt: string;
  image: string | null;
  visual_range: [number, number] | null;
  prompt_input_ids: number[];
  sequence_input_ids: number[][];
  greedy_ids: number[];
  greedy_text: string;
  module_contribution: { key: Lens; wrong: Lens };
}

export interface Meta {
  layers: number;
  hidden_size: number;
  visual_tokens: number;
  cases: Case[];
  visual_attribution: { case: number; layer: number; sigma: number }[];
}

export interface Expected {
  name: string;
  dir: string;
  meta: Meta;
  tensors: SafetensorsFile;
}

/** Models of the fixtures folder that have both files and expected values. */
export const expectedModels: string[] = hasFixtures
  ? readdirSync(join(fixturesDir, 'expected'))
      .filter((name) => existsSync(join(fixturesDir, name)))
      .sort()
  : [];

export function expectedOf(name: string): Expected {
  const folder = join(fixturesDir, 'expected', name);
  return {
    name,
    dir: join(fixturesDir, name),
    meta: JSON.parse(readFileSync(join(folder, 'meta.json'), 'utf8')) as Meta,
    tensors: openSafetensors(join(folder, 'tensors.safetensors')),
  };
}

export const pictureOf = (c: Case): Promise<RgbImage> => decodeImage(join(fixturesDir, 'images', c.image!));

/** Largest absolute difference. */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, ${expected.length} expected`);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    // NaN counts as a difference.
    if (!(d <= largest)) largest = d;
  }
  return largest;
}

export const dataOf = (t: Tensor | undefined): Float32Array => t!.data as Float32Array;
