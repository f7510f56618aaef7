/**
 * Which of many stored edits a query is about, or none: for editors whose edits act on any query that they are given. A key is what the frozen backbone
 * makes of picture and prompt (context/representation.ts); the stored edit with the most similar key acts where that similarity reaches a threshold,
 * which is fitted on training records alone, to a store of all their requests. Nothing else is learned, and no edit is changed.
 */

import type { Tensor } from '../../graph/dtype.ts';
import { f32 } from '../../graph/dtype.ts';
import type { EditRecord, RecordQuery } from '../../input/records.ts';
import { type Asked, pictureCount } from '../../input/segments.ts';
import type { Vlm } from '../../models/vlm.ts';
import type { Memory } from '../context/memory.ts';
import { centerOf, describe, fitThreshold, keyOf, keysOf, openQuery, parts } from '../context/representation.ts';
import type { Edit, EditorWeights, Settings } from '../editor.ts';
import type { Made } from '../forms.ts';
import { layerOf, real } from '../settings.ts';
import { highest, keyRows, type StoredKeys, storedKeys } from './stored-keys.ts';

/** An edit's key among its tensors, and what keys are taken from among those of the weights. */
const KEY = 'key';
const CENTER = 'routing.center';

/** What routing reads of an editor's weights: they hold it, or edits of theirs are not routed. */
export interface Routing {
  readonly layer: number;
  readonly threshold: number;
  readonly center: Tensor<'float32'>;
}

/** Two thirds of the depth up, where words and picture have met and wording matters less. */
export const routingLayer = ({ decoder: { layers } }: Vlm): number => Math.max(0, Math.round((2 / 3) * layers) - 1);

/** Settings of weights that hold a routing. */
export const routingFields = (vlm: Vlm) => ({
  routingLayer: layerOf(vlm, 'decoder layer whose states say which stored edit a query is about').default(routingLayer(vlm)),
  routingThreshold: real('similarity from which a query is about a stored edit', { min: -1, max: 1 }).optional(),
});

/** Tensors of weights that hold a routing. */
export const routingTensors = (vlm: Vlm, { settings }: Made): [string, readonly number[]][] =>
  settings.routingThreshold === undefined ? [] : [[CENTER, [parts * vlm.decoder.hidden]]];

/** Tensors of an edit whose weights hold a routing. */
export const keyTensors = (vlm: Vlm, { weights }: Made): [string, readonly number[]][] =>
  weights !== undefined && routingOf(weights) !== undefined ? [[KEY, [parts * vlm.decoder.hidden]]] : [];

/** The routing of weights; undefined: they have none. */
export function routingOf({ settings, tensors }: EditorWeights): Routing | undefined {
  const center = tensors.get(CENTER);
  const { routingLayer: layer, routingThreshold: threshold } = settings;
  if (center === undefined || typeof layer !== 'number' || typeof threshold !== 'number') return undefined;
  return { layer, threshold, center };
}

/** What weights hold of a routing. */
export const routingParts = ({
  layer,
  threshold,
  center,
}: Routing): { settings: Settings; tensors: [string, Tensor<'float32'>][] } => ({
  settings: { routingLayer: layer, routingThreshold: threshold },
  tensors: [[CENTER, center]],
});

/** The keys of requests as tensors of their edits, none of which depends on the others. */
export async function keysOfRequests(
  vlm: Vlm,
  requests: readonly Asked[],
  { layer, center }: Routing,
): Promise<[string, Tensor<'float32'>][]> {
  const asked = requests.map(({ prompt, image }) => ({ prompt, image }));
  return (await keysOf(vlm, asked, layer, center, true)).map((key) => [KEY, f32(key, [key.length])]);
}

/** Stored edits, and the one that each query is about. */
export class Routed {
  readonly #routing: Routing;
  readonly #storedOf: (edits: readonly Edit[]) => StoredKeys;

  constructor(
    readonly vlm: Vlm,
    weights: EditorWeights,
    readonly memory: Memory,
  ) {
    this.#routing = routingOf(weights)!;
    this.#storedOf = storedKeys(vlm);
  }

  /** The edit that acts on each query; undefined: none does. Inputs without a picture are about none. */
  async routes(queries: readonly Asked[]): Promise<(Edit | undefined)[]> {
    const { layer, threshold, center } = this.#routing;
    const out: (Edit | undefined)[] = queries.map(() => undefined);
    const asked = queries.flatMap((query, i) => (pictureCount(query) > 0 ? [i] : []));
    if (asked.length === 0) return out;
    const keys = await keysOf(
      this.vlm,
      asked.map((i) => queries[i]!),
      layer,
      center,
    );
    const memories = this.memory(queries.length);
    const rowsOf = new Map<readonly Edit[], number[]>();
    asked.forEach((i, n) => {
      rowsOf.set(memories[i]!, [...(rowsOf.get(memories[i]!) ?? []), n]);
    });
    for (const [edits, rows] of rowsOf) {
      const stored = this.#storedOf(edits);
      const products = await stored.products(
        KEY,
        rows.map((n) => keys[n]!),
      );
      rows.forEach((n, r) => {
        const { place, score } = mostSimilar(products[r]!);
        if (score >= threshold) out[asked[n]!] = stored.edits[place];
      });
    }
    return out;
  }
}

function mostSimilar(products: Float32Array): { place: number; score: number } {
  const place = highest(products);
  return { place, score: products[place]! / parts };
}

/** How often the metrics ask for an edit to act (request, rephrasing, rephrased picture) for once that they ask for none about a picture. */
const inScopeWeight = 3;

/**
 * Fits a routing to training records: the requests of all are stored, and the threshold is the one that sends the most of their queries where they
 * belong: request, rephrased prompt and picture to the record's own edit, the picture locality to none.
 */
export async function fitRouting(vlm: Vlm, records: readonly EditRecord[], layer: number): Promise<Routing> {
  const described: Float32Array[][] = [];
  for (const { queries } of records) {
    const asked: RecordQuery[] = [queries.reliability, queries.textGenerality, queries.modalGenerality, queries.modalLocality];
    described.push(await describe(vlm, await Promise.all(asked.map(openQuery)), layer));
  }
  const center = centerOf(described.map(([request]) => request!));
  const keys = described.map((own) => own.map((description) => keyOf(description, center)));
  const stored = keyRows(keys.map(([request]) => request!));
  const inScope: number[] = [];
  const outOfScope: number[] = [];
  for (const [i, own] of keys.entries())
    own.forEach((key, q) => {
      const { place, score } = mostSimilar(productsOf(key, stored));
      if (q === own.length - 1) outOfScope.push(score);
      else if (place === i) inScope.push(score);
    });
  return { layer, threshold: fitThreshold(inScope, outOfScope, inScopeWeight), center };
}

function productsOf(key: Float32Array, { data, shape }: Tensor<'float32'>): Float32Array {
  const [rows, n] = shape as [number, number];
  const out = new Float32Array(rows);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += key[i]! * data[r * n + i]!;
    out[r] = sum;
  }
  return out;
}
