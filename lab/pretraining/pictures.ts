/** Scenes as pictures that a mini reads: all of one size, or of several sizes and shapes in turn. */

import type { Tensor } from '../../src/graph/dtype.ts';
import type { ImageSettings } from '../../src/input/image/config.ts';
import { qwenProcessor } from '../../src/input/image/modern.ts';
import { stackInputs } from '../../src/models/vision.ts';
import type { Shape } from '../world/scene.ts';
import { fixedOf } from './homes.ts';
import type { Mini } from './minis.ts';
import { pixelValues } from './pixels.ts';

export interface ScenePictures {
  /** height and width of the pictures of a step, from 1 */
  shapeOf(step: number): Shape;
  /** rows and columns of patches, or of visual tokens that are patches */
  gridOf(shape: Shape): readonly [number, number];
  /** inputs of the image encoder for pictures of one shape */
  feeds(images: readonly Uint8Array[], shape: Shape): Record<string, Tensor>;
}

export function scenePictures({ architecture, pictures }: Mini): ScenePictures {
  if (pictures !== undefined) return pictures;
  const { size, grid } = fixedOf(architecture);
  return { shapeOf: () => size, gridOf: () => grid, feeds: (images) => ({ pixels: pixelValues(images, size[0]) }) };
}

/**
 * Pictures of several shapes for an image encoder of Qwen's, through its own processor.
 * @param shapes in turn @param places what it reads beside the pixels
 */
export function qwenPictures(
  settings: ImageSettings,
  shapes: readonly Shape[],
  places: (grid: readonly [number, number]) => Record<string, Tensor>,
): ScenePictures {
  const processor = qwenProcessor(settings);
  const gridOf = ([height, width]: Shape): readonly [number, number] =>
    processor.process({ height, width, data: new Uint8Array() }).grid;
  return {
    shapeOf: (step) => shapes[(step - 1) % shapes.length]!,
    gridOf,
    feeds: (images, shape) => {
      const [height, width] = shape;
      const own = places(gridOf(shape));
      return stackInputs(images.map((data) => ({ ...processor.process({ height, width, data }).pixels(), ...own })));
    },
  };
}
