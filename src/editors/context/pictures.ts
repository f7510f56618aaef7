/** Visual tokens of many pictures at once, for trainings: an evaluation keeps those that it has seen, a training sees most of them once. */

import { decodeImage } from '../../input/image/decode.ts';
import type { Picture } from '../../input/segments.ts';
import type { Vlm } from '../../models/vlm.ts';

/** Pictures by path, with their visual tokens. */
export type Pictures = ReadonlyMap<string, Picture>;

/** @param paths of picture files; null where a query has none */
export async function picturesOf(vlm: Vlm, paths: readonly (string | null)[]): Promise<Pictures> {
  const names = [...new Set(paths)].filter((path) => path !== null);
  const out = new Map<string, Picture>();
  const most = Math.min(32, vlm.batchLimit);
  for (let at = 0; at < names.length; at += most) {
    const some = names.slice(at, at + most);
    const prepared = await Promise.all(some.map(async (path) => vlm.processor(await decodeImage(path))));
    const seen = await vlm.see(prepared);
    some.forEach((path, i) => {
      const { count, views } = prepared[i]!;
      out.set(path, { key: path, count, views, see: () => Promise.resolve(seen[i]!) });
    });
  }
  return out;
}
