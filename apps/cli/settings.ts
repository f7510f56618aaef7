/** `--set name=value`: an editor's own options, with the type that the text shows: number, true or false, list of numbers, else words. */
import type { Settings } from '../../src/editors/editor.ts';
import { repeatable, text, type Value } from './frame/values.ts';

type Setting = readonly [name: string, value: Settings[string]];

const one: Value<Setting> = {
  ...text('a setting of the editor; its page in docs/editors lists them'),
  placeholder: 'NAME=VALUE',
  parse(given): Setting {
    const at = given.indexOf('=');
    if (at < 1) throw new Error('is not of the form NAME=VALUE; give one such as width=256');
    return [given.slice(0, at).trim(), parsed(given.slice(at + 1).trim())];
  },
} as Value<Setting>;

export const settings = repeatable(one);

export const toSettings = (given: readonly Setting[]): Settings => Object.fromEntries(given);

function parsed(text: string): Settings[string] {
  if (text === 'true' || text === 'false') return text === 'true';
  if (isNumber(text)) return Number(text);
  const parts = text.replace(/^\[|\]$/g, '').split(',');
  if ((parts.length > 1 || text.startsWith('[')) && parts.every(isNumber)) return parts.map(Number);
  return text;
}

const isNumber = (text: string): boolean => text.trim() !== '' && Number.isFinite(Number(text));
