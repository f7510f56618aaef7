/** Values that both attributions take. */
import { integers, outFile, text, type Value } from '../../frame/values.ts';

const numbers = integers('', { min: 0 });

/** Layers as `0,2,4`, `2-5` or `all`. */
export const layers: Value<readonly number[] | 'all'> = {
  help: 'layers to show, such as 0,2,4 or 2-5, or all',
  placeholder: 'N,..',
  required: false,
  fallback: 'all',
  repeatable: false,
  parse: (given) => (given.trim() === 'all' ? 'all' : (numbers.parse(given) ?? [])),
};

export const model = text('model folder or built-in name', { required: true, placeholder: 'MODEL' });
export const key = text('key token, as text (default: the token that the model predicts next)', { placeholder: 'TOKEN' });
export const picture = outFile('picture to write', { endings: ['.svg', '.png'] });

export const layerList = (given: readonly number[] | 'all', count: number): number[] =>
  given === 'all' ? Array.from({ length: count }, (_, i) => i) : [...given];
