/**
 * The model under test with the fixture's inputs: a picture that has stored pixel values is read from those, so that one rounded pixel does
 * not count as a difference of everything after it.
 */
import { createHash } from 'node:crypto';
import type { Tensor } from '../../src/graph/dtype.ts';
import type { RgbImage } from '../../src/input/segments.ts';
import type { Batch } from '../../src/models/batch.ts';
import { loadModel } from '../../src/models/load.ts';
import { followedBy } from '../../src/models/sequence.ts';
import { Vlm } from '../../src/models/vlm.ts';
import type { CompileOptions } from '../../src/runtime/program.ts';
import type { Checks } from './checks.ts';
import type { Fixture } from './fixture.ts';

export interface Subject {
  readonly fixture: Fixture;
  /** reads stored pixel values where there are some */
  readonly vlm: Vlm;
  /** the model's own processor, from picture to pixel values */
  readonly processor: (image: RgbImage) => Tensor<'float32'>;
  readonly checks: Checks;
}

const contentOf = ({ width, height, data }: RgbImage): string =>
  createHash('sha256').update(`${width}x${height}`).update(data).digest('base64');

export async function openSubject(fixture: Fixture, checks: Checks, options: CompileOptions = {}): Promise<Subject> {
  const own = loadModel(fixture.folder, options);
  const stored = new Map<string, Tensor<'float32'>>();
  for (const [c, { image }] of fixture.meta.cases.entries()) {
    const pixels = image == null ? undefined : fixture.tensor(`${c}.pixel_values`);
    if (image != null && pixels !== undefined) stored.set(contentOf(await fixture.picture(image)), pixels);
  }
  const vlm = new Vlm({
    name: own.name,
    architecture: own.architecture,
    engine: own.engine,
    weights: own.weights,
    codec: own.codec,
    processor: (image) => {
      const pixels = stored.get(contentOf(image));
      return pixels === undefined ? own.processor(image) : { ...own.processor(image), pixels: () => ({ pixels }) };
    },
    eosIds: own.eosIds,
    fingerprint: () => own.fingerprint,
    compileOptions: options,
  });
  const processor = (image: RgbImage): Tensor<'float32'> => own.processor(image).pixels().pixels as Tensor<'float32'>;
  return { fixture, vlm, processor, checks };
}

/**
 * One prompt as a batch.
 * @param more token ids after it
 */
export async function batchOf(
  { vlm, fixture }: Subject,
  prompt: string,
  image?: string | null,
  target?: string,
  more: readonly number[] = [],
): Promise<Batch> {
  const picture = image == null ? undefined : await fixture.picture(image);
  const sequence = vlm.layout({ prompt, image: picture }, target);
  return vlm.batch([more.length === 0 ? sequence : followedBy(sequence, more, vlm.decoder.maxPositions)]);
}
