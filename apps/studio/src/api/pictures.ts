/** Pictures by reference: a path of the server. A dropped picture is handed to the server first, so that a link can name it. */
import { useQuery } from '@tanstack/react-query';
import type { Pixels } from 'visedit/figures';
import { blob, json } from './client.ts';

/** From the left, from the top, width, height, as fractions of a picture. */
export type Region = readonly [number, number, number, number];

export interface Picture {
  /** Address that the page can show. */
  url: string;
  width: number;
  height: number;
  /** RGB, for figures. */
  pixels: Pixels;
}

/** Larger sides are of no use to any model here. */
const largestSide = 1344;

export function usePicture(reference: string | null | undefined) {
  return useQuery({
    queryKey: ['picture', reference],
    queryFn: ({ signal }) => fetchPicture(reference!, signal),
    enabled: typeof reference === 'string' && reference !== '',
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: Number.POSITIVE_INFINITY,
  });
}

export async function fetchPicture(reference: string, signal?: AbortSignal): Promise<Picture> {
  const file = await blob(reference, signal);
  const bitmap = await createImageBitmap(file);
  const context = draw(bitmap, bitmap.width, bitmap.height);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const rgb = new Uint8Array(bitmap.width * bitmap.height * 3);
  for (let i = 0; i < bitmap.width * bitmap.height; i++) rgb.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
  const pixels = { width: bitmap.width, height: bitmap.height, data: rgb };
  return { url: URL.createObjectURL(file), width: bitmap.width, height: bitmap.height, pixels };
}

/** @throws Error that says what to do when the file is not a picture that the browser can read */
export async function keepPicture(file: Blob): Promise<string> {
  if (file.size > 40e6) throw new Error('This file is larger than 40 MB. Make the picture smaller and drop it again.');
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error('This file is not a picture that can be read. Use a PNG, JPEG, WebP, GIF or AVIF file.');
  }
  const fits = Math.min(1, largestSide / Math.max(bitmap.width, bitmap.height));
  // A picture that is too narrow for that goes to the server as it is, which says so.
  const scale = fits * Math.min(bitmap.width, bitmap.height) < 1 ? 1 : fits;
  return upload(draw(bitmap, Math.ceil(bitmap.width * scale), Math.ceil(bitmap.height * scale)).canvas);
}

/**
 * The same picture, a little brighter and moved by a fiftieth: the nearest thing to a rephrased picture when there is no other one of the
 * same content.
 */
export async function rephrasedPicture(reference: string): Promise<string> {
  const { url, width, height } = await fetchPicture(reference);
  const source = new Image();
  source.src = url;
  await source.decode();
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d')!;
  context.drawImage(source, 0, 0, width, height);
  context.filter = 'brightness(1.06) saturate(0.92)';
  context.drawImage(source, Math.max(1, Math.round(width / 50)), Math.max(1, Math.round(height / 50)), width, height);
  return upload(canvas);
}

function draw(bitmap: ImageBitmap, width: number, height: number): CanvasRenderingContext2D {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d', { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0, width, height);
  return context;
}

/** A copy of a picture with some parts hidden; its reference, the same for the same parts. */
export function useHidden(picture: string, regions: readonly Region[], by: string) {
  return useQuery({
    queryKey: ['hidden', picture, regions, by],
    queryFn: async ({ signal }) => {
      const body = { image: picture, hide: { regions, by } };
      return (await json<{ url: string }>('/v1/pictures', { method: 'POST', body, signal })).url;
    },
    enabled: regions.length > 0,
    staleTime: Number.POSITIVE_INFINITY,
  });
}

async function upload(canvas: HTMLCanvasElement): Promise<string> {
  const { url } = await json<{ url: string }>('/v1/pictures', { method: 'POST', body: { image: canvas.toDataURL('image/png') } });
  return url;
}
