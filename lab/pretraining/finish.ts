/**
 * Writes a pretrained mini as a published-layout folder. The residual stream is first brought to a root mean square near 1, as published
 * models have it: dividing all that writes into it (embeddings, connector, attention and MLP outputs) by c, the norms' epsilon by c², and
 * multiplying the final norm (its bias too) by c leaves a pre-norm decoder's function as it is.
 */

import { join } from 'node:path';
import { makeFolder, writeFileAtomic } from '../../src/files/atomic.ts';
import { toFloat16, writeSafetensors } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { f32 } from '../../src/graph/dtype.ts';
import { bosId, eosId, padId, writeTokenizer } from '../world/vocabulary.ts';
import type { Mini } from './minis.ts';

export function rescaleResidual(
  mini: Mini,
  weights: ReadonlyMap<string, Tensor<'float32'>>,
  factor: number,
): Map<string, Tensor<'float32'>> {
  const scaled = (t: Tensor<'float32'>, by: number): Tensor<'float32'> =>
    f32(
      t.data.map((x) => x * by),
      t.shape,
    );
  return new Map(
    [...weights].map(([name, t]) => [
      name,
      mini.writesResidual(name) ? scaled(t, 1 / factor) : mini.isFinalNorm(name) ? scaled(t, factor) : t,
    ]),
  );
}

export function writeMini(
  mini: Mini,
  weights: ReadonlyMap<string, Tensor<'float32'>>,
  out: string,
  metadata: Record<string, string>,
): void {
  makeFolder(out);
  const half = new Map(
    [...weights].map(([name, t]): [string, Tensor] => [name, { dtype: 'float16', shape: t.shape, data: toFloat16(t.data) }]),
  );
  const json = (name: string, value: unknown): void => writeFileAtomic(join(out, name), `${JSON.stringify(value, null, 2)}\n`);
  json('config.json', mini.config);
  json('preprocessor_config.json', mini.preprocessor);
  const begins = mini.bos === null ? {} : { bos_token_id: mini.bos === '<s>' ? bosId : eosId };
  json('generation_config.json', { ...begins, eos_token_id: eosId, pad_token_id: padId });
  if (mini.chatTemplate !== undefined) writeFileAtomic(join(out, 'chat_template.jinja'), mini.chatTemplate);
  writeTokenizer(out, { ...mini.tokenizer, bos: mini.bos });
  writeSafetensors(join(out, 'model.safetensors'), half, { format: 'pt', ...metadata });
}
