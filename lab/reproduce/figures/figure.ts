/** What a figure of the paper is here: plain data to draw, what its caption claims, and whether the numbers show it. */

import { join } from 'node:path';
import { type FileId, ManifestKeeper, versions } from '../../../src/evaluation/manifest.ts';
import { drawFigure, type Figure, figureJson, savePicture } from '../../../src/figures/index.ts';
import { writeFileAtomic } from '../../../src/files/atomic.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import { loadModel } from '../../../src/models/load.ts';
import type { Vlm } from '../../../src/models/vlm.ts';

/** A sentence of the paper, measured. */
export interface Claim {
  readonly claim: string;
  /** null: it cannot be measured on this data */
  readonly holds: boolean | null;
  /** the figures in words */
  readonly measured: string;
}

export interface FigureResult {
  /** what a reader needs below the picture */
  readonly caption: string;
  readonly figure: Figure;
  readonly claims: readonly Claim[];
  /** numbers behind the claims, for other programs */
  readonly measures: Readonly<Record<string, unknown>>;
  /** models that were read */
  readonly models: readonly { readonly name: string; readonly fingerprint: string }[];
  /** other files that were read, such as an editor's weights */
  readonly files?: readonly FileId[];
}

export interface FigureOptions {
  /** given: these models in place of the figure's own */
  models?: readonly string[] | undefined;
  /** a folder that `world build` wrote, or records in that layout; drawn anew into `out` when absent */
  world?: string | undefined;
  /** weights of VEAD; those that come with the model when absent */
  weights?: string | undefined;
  /** a folder with finished work that the figure draws */
  from?: string | undefined;
  out: string;
  seed: number;
  /** records to average over */
  limit?: number | undefined;
  /** fewer records: the look of the figure, not its numbers */
  quick?: boolean | undefined;
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
  log: (text: string) => void;
}

export interface PaperFigure {
  readonly summary: string;
  /** default models; those that are not part of this copy are left out and named */
  readonly models: readonly string[];
  make(options: FigureOptions): Promise<FigureResult>;
}

export interface WrittenFigure extends FigureResult {
  readonly name: string;
  readonly pictures: readonly string[];
  readonly data: string;
}

/** Draws a figure and writes SVG, PNG, the plain data as JSON and a manifest. */
export async function writeFigure(
  name: string,
  figure: PaperFigure,
  options: FigureOptions,
  command: string,
): Promise<WrittenFigure> {
  const { out, seed, limit = null, quick = false } = options;
  const result = await figure.make(options);
  const { models, files = [], caption, claims, measures } = result;
  const identity = { figure: name, models, files, seed, limit, quick, versions: versions() };
  const keeper = new ManifestKeeper(out, command, identity, false);
  const pictures = ['svg', 'png'].map((ending) => join(out, `${name}.${ending}`));
  const data = join(out, `${name}.json`);
  const text = JSON.stringify({ name, caption, claims, measures, models, seed, figure: result.figure }, figureJson, 1);
  // The picture is drawn from what the file says, so that drawing the file again gives the same picture.
  const svg = await drawFigure((JSON.parse(text) as { figure: Figure }).figure);
  for (const path of pictures) savePicture(path, svg);
  writeFileAtomic(data, `${text}\n`);
  keeper.write(1, true);
  return { ...result, name, pictures, data };
}

/** Opens a model for a figure and releases it after use. */
export async function withModel<T>(name: string, { threads }: FigureOptions, use: (vlm: Vlm) => Promise<T>): Promise<T> {
  const vlm = loadModel(name, threads === undefined ? {} : { threads });
  try {
    return await use(vlm);
  } finally {
    await vlm.release();
  }
}

/** A picture as figures take it: plain bytes, whatever a decoder keeps them in. */
export const pixels = ({ width, height, data }: RgbImage): RgbImage => ({ width, height, data: new Uint8Array(data) });

export const percent = (x: number | undefined): string => (x === undefined ? 'none' : `${(100 * x).toFixed(1)} %`);
export const times = (x: number): string => `${x >= 100 ? x.toFixed(0) : x.toPrecision(3)}×`;
