/** How a command opens its model: options that all of them share, and what is said of a large one before long work. */
import { gigabytes, type MemoryEstimate, parseBytes } from '../../src/models/memory.ts';
import { type WeightType, weightTypes } from '../../src/models/weight-types.ts';
import type { Engine } from '../../src/runtime/program.ts';
import type { CommandContext } from './frame/context.ts';
import { choice, integer, text, type Value } from './frame/values.ts';

const bytes: Value<number | undefined> = {
  ...text('largest memory of the model, such as 8GB (default: what the machine has)'),
  placeholder: 'SIZE',
  parse: parseBytes,
} as Value<number | undefined>;

const pixels = (help: string) => integer(help, { min: 1, max: 2 ** 26 });

export const modelOptions = {
  dtype: choice(
    'type of the weights in memory (default: as they are stored); `visedit quantize` writes a rounded model once',
    weightTypes,
  ),
  maxMemory: bytes,
  maxPixels: pixels(
    'most pixels of a picture for the image encoder: time and memory follow them (default: what the model was published with)',
  ),
  minPixels: pixels('fewest pixels of a picture for the image encoder (default: what the model was published with)'),
};

export interface ModelOptions {
  dtype: WeightType | undefined;
  maxMemory: number | undefined;
  maxPixels: number | undefined;
  minPixels: number | undefined;
}

/** Of a command's values those that say how its model is opened. */
export const openingOf = ({ dtype, maxMemory, maxPixels, minPixels }: Partial<ModelOptions>): ModelOptions => ({
  ...{ dtype, maxMemory, maxPixels, minPixels },
});

/** Small models need no announcement. */
const WORTH_SAYING = 1e9;

export function announceMemory(
  { name, memory, engine: { device } }: { name: string; memory: MemoryEstimate | undefined; engine: Engine },
  context: CommandContext,
): void {
  const { card } = device;
  if (device.name !== 'cpu')
    context.log(`${name} runs on ${device.name}${card === undefined ? '' : `: ${card.name}, ${gigabytes(card.memory)}`}.`);
  if (memory === undefined || (memory.bytes < WORTH_SAYING && memory.mapped < WORTH_SAYING)) return;
  const mapped =
    memory.mapped < WORTH_SAYING ? '' : `, and ${gigabytes(memory.mapped)} of weights read from disk as they are needed`;
  context.log(`${name}: about ${gigabytes(memory.bytes)} of memory${mapped}.`);
}
