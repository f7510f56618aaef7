/**
 * Changes of weights as a LoRA adapter in the form of the `peft` package: for a matrix W [out, in] it adds  (α / r) B A  with A [r, in] and
 * B [out, r]. Here α = r, and B A is the change itself: factors as the edits hold them, or, for a change that is known whole, the change and an
 * identity matrix, whose rank is the smaller side of the matrix.
 */

import { join } from 'node:path';
import { makeFolder, writeFileAtomic } from '../../files/atomic.ts';
import { writeSafetensors } from '../../files/safetensors.ts';
import { f32, type Tensor } from '../../graph/index.ts';
import type { Vlm } from '../../models/vlm.ts';
import { newFolder } from '../../models/write-folder.ts';
import { type Factored, joined, type WeightChange, type WeightChanges, wholeChange } from '../gradients/changes.ts';

/** Names of weights as modules of transformers' classes (transformers 4.52 and later) have them; a name that nothing fits belongs to none. */
const modules: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  [/^language_model\.model\.decoder\./, 'language_model.model.decoder.'],
  [/^language_model\.model\./, 'model.language_model.'],
  [/^model\.layers\./, 'model.language_model.layers.'],
  [/^(multi_modal_projector|connector|visual)\./, 'model.$1.'],
  [/^(language_projection\.)/, '$1'],
  [/^(qformer\.)/, '$1'],
  [/^(model\.language_model\.|model\.multi_modal_projector\.|model\.visual\.|model\.connector\.|model\.text_model\.)/, '$1'],
];

/** The module of a weight. @throws Error for models that transformers has no class for */
export function moduleOf(weight: string): string {
  const fit = modules.find(([pattern]) => pattern.test(weight));
  if (fit === undefined)
    throw new Error(
      `transformers has no class of models with a weight ${weight}, so peft cannot load an adapter for it; export merged weights instead`,
    );
  return weight.replace(fit[0], fit[1]).replace(/\.(weight|bias)$/, '');
}

export interface AdapterOptions {
  readonly out: string;
  /** what is written as `base_model_name_or_path` */
  readonly model: string;
  /** the largest rank that is written */
  readonly maxRank: number;
}

export interface Adapter {
  readonly out: string;
  /** rank by module */
  readonly ranks: Readonly<Record<string, number>>;
  readonly bytes: number;
}

/**
 * Writes `adapter_config.json` and `adapter_model.safetensors` into a new folder.
 * @throws Error when something is in the folder already, or a change is no matrix's or bias's, or needs a larger rank; it names the rank
 */
export async function writeAdapter(vlm: Vlm, changes: WeightChanges, { out, model, maxRank }: AdapterOptions): Promise<Adapter> {
  const to = newFolder(out);
  const matrices = new Map([...changes].filter(([name, change]) => name.endsWith('.weight') && sidesOf(change).length === 2));
  const biases = new Map(
    [...changes].filter(([name]) => name.endsWith('.bias') && matrices.has(name.replace(/bias$/, 'weight'))),
  );
  const others = [...changes.keys()].filter((name) => !matrices.has(name) && !biases.has(name));
  if (others.length > 0)
    throw new Error(
      `a LoRA adapter changes matrices and their biases; the edits change ${others.length} other weights, such as ${others[0]}; export merged weights instead`,
    );
  const ranks = new Map([...matrices].map(([name, change]) => [name, rankOf(change)]));
  const needed = Math.max(...ranks.values());
  if (needed > maxRank)
    throw new Error(
      `the change of ${[...ranks].find(([, rank]) => rank === needed)![0]} needs rank ${needed}, and the largest allowed is ${maxRank}; give --max-rank ${needed}, or export merged weights`,
    );
  const tensors = new Map<string, Tensor<'float32'>>();
  for (const [name, change] of matrices) {
    const { left, right } = await factorsOf(vlm, change);
    const path = `base_model.model.${moduleOf(name)}`;
    tensors.set(`${path}.lora_A.weight`, right);
    tensors.set(`${path}.lora_B.weight`, left);
    if (biases.size === 0) continue;
    const bias = biases.get(name.replace(/weight$/, 'bias'));
    tensors.set(`${path}.lora_B.bias`, bias === undefined ? zeroBias(left) : await wholeChange(vlm, bias));
  }
  const byModule = Object.fromEntries([...ranks].map(([name, rank]) => [moduleOf(name), rank]));
  const smaller = Object.fromEntries(Object.entries(byModule).filter(([, rank]) => rank !== needed));
  const config = {
    peft_type: 'LORA',
    task_type: null,
    base_model_name_or_path: model,
    inference_mode: true,
    r: needed,
    lora_alpha: needed,
    lora_dropout: 0,
    bias: 'none',
    lora_bias: biases.size > 0,
    fan_in_fan_out: false,
    target_modules: Object.keys(byModule),
    rank_pattern: smaller,
    alpha_pattern: smaller,
    modules_to_save: null,
  };
  makeFolder(to);
  writeSafetensors(join(to, 'adapter_model.safetensors'), tensors, { format: 'pt' });
  // Last: a folder without it is no adapter.
  writeFileAtomic(join(to, 'adapter_config.json'), `${JSON.stringify(config, null, 2)}\n`);
  return { out, ranks: byModule, bytes: [...tensors.values()].reduce((sum, { data }) => sum + data.byteLength, 0) };
}

function sidesOf({ dense: [whole], factored: [part] }: WeightChange): readonly number[] {
  return whole === undefined ? [part!.left.shape[0]!, part!.right.shape[1]!] : whole.shape;
}

/** Factors side by side have the sum of their ranks; a change that is known whole has at most that of its smaller side. */
function rankOf(change: WeightChange): number {
  const least = Math.min(...sidesOf(change));
  const sum = change.factored.reduce((total, { right }) => total + right.shape[0]!, 0);
  return change.dense.length > 0 ? least : Math.min(sum, least);
}

/** Exact factors of a matrix's change. */
async function factorsOf(vlm: Vlm, change: WeightChange): Promise<Factored> {
  const [out, width] = sidesOf(change) as [number, number];
  const rank = rankOf(change);
  if (change.dense.length === 0 && rank < Math.min(out, width)) return joined(change.factored);
  const whole = await wholeChange(vlm, change);
  return out <= width ? { left: identity(out), right: whole } : { left: whole, right: identity(width) };
}

function identity(size: number): Tensor<'float32'> {
  const data = new Float32Array(size * size);
  for (let i = 0; i < size; i++) data[i * size + i] = 1;
  return f32(data, [size, size]);
}

const zeroBias = ({ shape: [out] }: Tensor<'float32'>): Tensor<'float32'> => f32(new Float32Array(out!), [out!]);
