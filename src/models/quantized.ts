/** What config.json says of a folder whose matrices \`visedit quantize\` rounded to blocks of whole numbers. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseConfig } from '../files/config.ts';
import { type Json, readJson } from '../files/json.ts';
import type { WeightType } from './weight-types.ts';

const METHOD = 'visedit-blocks';

const schema = z.looseObject({
  quant_method: z.literal(METHOD),
  dtype: z.enum(['int4', 'int8'], 'expected int4 or int8'),
  /** fingerprint of the model it was made from: edits and adapters of that model fit this one */
  source: z.string('expected a fingerprint').min(1, 'expected a fingerprint'),
});
const given = z.looseObject({ quantization_config: z.looseObject({ quant_method: z.unknown().optional() }).nullish() });
export type Quantized = z.output<typeof schema>;

export const quantizedConfig = (dtype: Quantized['dtype'], source: string): Quantized => ({
  quant_method: METHOD,
  dtype,
  source,
});

/** Undefined: the folder holds floats. */
export function quantizedFrom(dir: string): Quantized | undefined {
  const path = join(dir, 'config.json');
  if (!existsSync(path)) return undefined;
  return quantizedIn(path, readJson(path));
}

/** @throws Error when the weights are rounded in a way that is not read here */
export function quantizedIn(path: string, config: Json): Quantized | undefined {
  const { quantization_config: found } = parseConfig(path, given, config);
  if (found === undefined || found === null) return undefined;
  if (found.quant_method !== METHOD) {
    throw new Error(
      `${path}: quantization_config.quant_method ${JSON.stringify(found.quant_method)} is not known; take the model in floats and round it: visedit quantize MODEL --out DIR`,
    );
  }
  return parseConfig(path, schema, found);
}

export const storedTypeOf = (dir: string): Quantized['dtype'] | undefined => quantizedFrom(dir)?.dtype;

/** Rounded weights have no floats to go back to. */
export function checkType(name: string, asked: WeightType | undefined, stored: Quantized['dtype'] | undefined): void {
  if (asked === undefined || stored === undefined || asked === stored) return;
  throw new Error(`${name} is stored in ${stored}; for ${asked} open the model that it was made from, or leave --dtype out`);
}
