/** Answers of routes with long work: the result, a drawing of it, or a job that the client can watch. */

import { drawFigure, type Figure, figureJson, toPng } from '../../../src/figures/index.ts';
import type { Progress } from '../engine/tasks.ts';
import type { Services } from '../services.ts';
import { type Ctx, clientOf } from './app-types.ts';

export type Format = 'json' | 'figure' | 'svg' | 'png';

/** The format that is asked for by field or by the Accept header. */
export function formatOf(c: Ctx, field: Format | undefined): Format {
  if (field !== undefined) return field;
  const accept = c.req.header('accept') ?? '';
  if (accept.startsWith('image/svg+xml')) return 'svg';
  return accept.startsWith('image/png') ? 'png' : 'json';
}

export interface Doing {
  readonly signal: AbortSignal;
  onProgress(progress: Progress): void;
  onStart(): void;
}

export interface LongWork<T> {
  readonly kind: 'edit' | 'attribution' | 'explanation' | 'plan' | 'comparison';
  readonly background: boolean | undefined;
  readonly format: Format;
  /** status of the plain answer */
  readonly status?: 200 | 201;
  readonly work: (doing: Doing) => Promise<T>;
  /** the part of the result that the client gets */
  readonly show: (result: T) => object;
  readonly draw?: (result: T) => Figure;
}

const types = { json: 'application/json', figure: 'application/json', svg: 'image/svg+xml', png: 'image/png' };

async function drawn(figure: Figure, format: Exclude<Format, 'json'>): Promise<string | Uint8Array> {
  if (format === 'figure') return JSON.stringify(figure, figureJson);
  const svg = await drawFigure(figure);
  return format === 'svg' ? svg : toPng(svg);
}

export async function respond<T>(
  c: Ctx,
  services: Services,
  { kind, background, format, status = 200, work, show, draw }: LongWork<T>,
): Promise<Response> {
  if (background === true) {
    const release = c.get('holdBody')?.() ?? (() => {});
    const job = services.jobs.start(kind, async (signal, onProgress, onStart) => {
      const result = await work({ signal, onProgress, onStart }).finally(release);
      if (format === 'json' || draw === undefined) return show(result);
      const content = await drawn(draw(result), format);
      if (format === 'figure') return JSON.parse(content as string) as unknown;
      const url = `data:${types[format]};base64,${Buffer.from(content).toString('base64')}`;
      return { content_type: types[format], url };
    });
    return c.json(job, 202);
  }
  const result = await work({ signal: clientOf(c), onProgress: () => {}, onStart: () => {} });
  if (format === 'json' || draw === undefined) return c.json(show(result), status);
  return sendFigure(c, draw(result), format);
}

export async function sendFigure(c: Ctx, figure: Figure, format: Exclude<Format, 'json'>): Promise<Response> {
  const content = await drawn(figure, format);
  return c.body(typeof content === 'string' ? content : new Uint8Array(content), 200, { 'content-type': types[format] });
}
