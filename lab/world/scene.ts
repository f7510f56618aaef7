/**
 * Scenes of the mini world: 2 x 2 cells of 36 pixels on a flat background, one to four objects, one art style.
 * `sampleScene` draws the content, `render` the pixels (72 x 72 RGB; 12-pixel patches make every cell 3 x 3 visual tokens).
 */
import type { Random } from '../../src/random.ts';
import { type Atlas, objectSizes } from './atlas.ts';
import { allConcepts, colors, concept, styles } from './concepts.ts';

export const canvas = 72;
export const cellSize = 36;
export const cellCount = 4;

export interface Thing {
  readonly concept: number;
  readonly size: number;
  /** Inside its cell. */
  readonly x: number;
  readonly y: number;
}

export interface Scene {
  readonly style: number;
  readonly background: number;
  /** Reading order; null is an empty cell. */
  readonly cells: readonly (Thing | null)[];
}

export interface SceneOptions {
  /** Concepts to draw from (default: all). */
  readonly pool?: readonly number[];
  /** How many objects (default: drawn, 1 to 4). */
  readonly count?: number;
  /** Concepts that stand in given cells. */
  readonly fixed?: readonly { readonly cell: number; readonly concept: number }[];
  /** Concepts that are not drawn again (nor doubled). */
  readonly once?: readonly number[];
  readonly background?: number;
}

const duplicateRate = 0.25;
/** Chance of 1, 2, 3, 4 objects. */
const countWeights = [0.1, 0.25, 0.35, 0.3];

export function sampleCount(random: Random): number {
  let u = random.uniform();
  for (let i = 0; i < countWeights.length; i++) {
    u -= countWeights[i]!;
    if (u < 0) return i + 1;
  }
  return cellCount;
}

export function sampleScene(random: Random, options: SceneOptions = {}): Scene {
  const pool = options.pool ?? allConcepts;
  const fixed = options.fixed ?? [];
  const once = new Set(options.once);
  const style = random.int(styles.length);
  const background = options.background ?? random.int(colors.length);
  const count = Math.max(options.count ?? sampleCount(random), fixed.length);
  const cells: (Thing | null)[] = [null, null, null, null];
  const present: number[] = [];
  for (const { cell, concept } of fixed) {
    cells[cell] = place(random, concept);
    present.push(concept);
  }
  const free = random.shuffle([0, 1, 2, 3].filter((cell) => !cells[cell]));
  for (let i = fixed.length; i < count; i++) {
    const repeatable = present.filter((c) => !once.has(c));
    let drawn: number;
    if (repeatable.length > 0 && random.uniform() < duplicateRate) drawn = random.pick(repeatable);
    else {
      do drawn = random.pick(pool);
      while (once.has(drawn));
    }
    cells[free[i - fixed.length]!] = place(random, drawn);
    present.push(drawn);
  }
  return { style, background, cells };
}

function place(random: Random, index: number): Thing {
  const size = random.pick(objectSizes);
  return { concept: index, size, x: random.int(cellSize - size + 1), y: random.int(cellSize - size + 1) };
}

/** The same content in another art style, with new sizes and places inside the cells. */
export function restyle(random: Random, scene: Scene): Scene {
  const style = (scene.style + 1 + random.int(styles.length - 1)) % styles.length;
  return { style, background: scene.background, cells: scene.cells.map((thing) => thing && place(random, thing.concept)) };
}

/** What a scene shows, whatever its style: two pictures with the same key ask for the same answers. */
export const sceneKey = (scene: Scene): string =>
  `${colors[scene.background]?.name}:${scene.cells.map((thing) => (thing ? concept(thing.concept).name : '-')).join(',')}`;

/** Height and width of a picture of a scene. */
export type Shape = readonly [height: number, width: number];

export const squareShape: Shape = [canvas, canvas];

/**
 * @param shape sides that are even and at least two cells long; in a larger cell a thing has more room, and stands by its own measure in it
 */
export function render(atlas: Atlas, scene: Scene, shape: Shape = squareShape): Uint8Array {
  const [height, width] = shape;
  const out = new Uint8Array(height * width * 3);
  const [r, g, b] = colors[scene.background]!.rgb;
  for (let i = 0; i < out.length; i += 3) {
    out[i] = r;
    out[i + 1] = g;
    out[i + 2] = b;
  }
  scene.cells.forEach((thing, cell) => {
    if (!thing) return;
    const { size } = thing;
    const { pixels, offset } = atlas.sprite(scene.style, thing.concept, size);
    /** Of a cell of `side` pixels the thing leaves `side - size`, of which as much is before it as in a cell of the world. */
    const within = (at: number, side: number): number =>
      side === cellSize ? at : Math.floor(((at + 0.5) / (cellSize - size + 1)) * (side - size + 1));
    const left = (cell % 2) * (width / 2) + within(thing.x, width / 2);
    const top = (cell >> 1) * (height / 2) + within(thing.y, height / 2);
    let from = offset;
    for (let y = 0; y < size; y++) {
      let to = ((top + y) * width + left) * 3;
      for (let x = 0; x < size; x++, from += 4, to += 3) {
        const alpha = pixels[from + 3]!;
        if (alpha === 0) continue;
        const rest = 255 - alpha;
        for (let i = 0; i < 3; i++) out[to + i] = Math.min(255, pixels[from + i]! + Math.round((out[to + i]! * rest) / 255));
      }
    }
  });
  return out;
}
