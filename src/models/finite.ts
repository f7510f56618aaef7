/**
 * Numbers that are not finite. Reading all weights when a model is opened would take longer than opening it, so what comes out of its programs is
 * looked at, and the weights are read only to say which of them is at fault.
 */

import { widened } from '../files/blocks.ts';
import type { Checkpoint } from '../files/folder.ts';
import type { Tensor } from '../graph/dtype.ts';

/** The model gives values that are not numbers. */
export class NotFinite extends Error {
  override name = 'NotFinite';
}

/** Whether a value is infinite or not a number: such a value times 0 is not 0. */
export function hasNotFinite(data: Float32Array): boolean {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let i = 0;
  for (const end = data.length - 3; i < end; i += 4) {
    a += data[i]! * 0;
    b += data[i + 1]! * 0;
    c += data[i + 2]! * 0;
    d += data[i + 3]! * 0;
  }
  for (; i < data.length; i++) a += data[i]! * 0;
  return a + b + c + d !== 0;
}

/** Keys and values that are handed on to the next step: their faults show in its scores. */
const isCache = (name: string): boolean => /^(past|recent)\.|\.(key|value)$/.test(name);

/**
 * Checks what a program gave.
 * @param explain says which weight is at fault, if one is
 * @throws NotFinite that says so
 */
export function checkFinite(outputs: Readonly<Record<string, Tensor>>, name: string, explain: () => string | undefined): void {
  const given = Object.keys(outputs);
  const looked = 'logits' in outputs ? ['logits'] : given.filter((output) => !isCache(output));
  const wrong = (looked.length > 0 ? looked : given).find((output) => {
    const { data } = outputs[output]!;
    return data instanceof Float32Array && hasNotFinite(data);
  });
  if (wrong === undefined) return;
  const weight = explain();
  throw new NotFinite(
    weight === undefined
      ? `${name}: ${wrong} has values that are not finite numbers, though all weights are: they became too large for their type, or an edit or a picture has such values; open the model with --dtype float32`
      : `${name}: ${wrong} has values that are not finite numbers, since ${weight}; fetch the file again`,
  );
}

/** Bytes read at a time. */
const CHUNK = 32 * 1024 * 1024;

/** The first weight that holds a value that is not finite, with its file and place; undefined when there is none. */
export function notFiniteWeight(checkpoint: Checkpoint): string | undefined {
  for (const name of checkpoint.names()) {
    const { file, entry } = checkpoint.place(name);
    const { dtype } = entry;
    if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') continue;
    const width = dtype === 'F32' ? 4 : 2;
    const step = 'strides' in entry ? entry.bytes : CHUNK;
    for (let at = 0; at < entry.bytes; at += step) {
      const values = widened(file.readBytes(entry, at, Math.min(step, entry.bytes - at)), dtype);
      if (!hasNotFinite(values)) continue;
      const index = values.findIndex((x) => !Number.isFinite(x));
      return `${name} in ${file.path} holds ${values[index]} as element ${at / width + index} of [${entry.shape.join(', ')}]`;
    }
  }
  return undefined;
}
