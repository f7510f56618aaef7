/**
 * Settings of editors. Each editor has one schema of what `train` may be told and one of what `edit` may be told: names, what fits the model, what
 * each means, and the published default. Commands, files and the docs' tables read these schemas.
 */

import { z } from 'zod';
import type { Vlm } from '../models/vlm.ts';
import type { Settings, TrainOptions } from './editor.ts';
import type { DescentSettings } from './gradients/descend.ts';

/** The settings that `train` or `edit` of one editor may be told, by name. */
export type SettingsSchema = z.ZodObject<Readonly<Record<string, z.ZodType>>>;

/** What a setting may be, as its kind below says it; `option` is the option of `train` that sets it, `fits` goes on after the range. */
interface Limits {
  readonly min?: number;
  /** the smallest value itself is refused */
  readonly above?: number;
  readonly max?: number;
  readonly option?: string;
  readonly fits?: string;
}

function limited(kind: string, { min, above, max, fits }: Limits): string {
  const low = above === undefined ? (min === undefined ? '' : ` from ${min}`) : ` above ${above}`;
  return `must be ${kind}${low}${max === undefined ? '' : ` to ${max}`}${fits === undefined ? '' : ` (${fits})`}`;
}

const about = (description: string, option?: string): { description: string; option?: string } => ({
  description,
  ...(option === undefined ? {} : { option }),
});

/** A number. */
export function real(meaning: string, limits: Limits = { min: 0 }): z.ZodNumber {
  const error = limited('a number', limits);
  let schema = z.number({ error });
  if (limits.min !== undefined) schema = schema.min(limits.min, { error });
  if (limits.above !== undefined) schema = schema.gt(limits.above, { error });
  if (limits.max !== undefined) schema = schema.max(limits.max, { error });
  return schema.meta(about(meaning, limits.option));
}

/** A whole number from 0. */
export function whole(meaning: string, given: Limits = {}): z.ZodNumber {
  const limits = { min: 0, ...given };
  const error = limited('a whole number', limits);
  const schema = z.int({ error }).min(limits.min, { error });
  return (limits.max === undefined ? schema : schema.max(limits.max, { error })).meta(about(meaning, limits.option));
}

/** A number of things that are built: bounded, so that a damaged file cannot fill the memory. */
export const size = (meaning: string, limits: Limits = {}): z.ZodNumber => whole(meaning, { min: 1, max: 2 ** 20, ...limits });

/** True or false. */
export const flag = (meaning: string): z.ZodBoolean => z.boolean({ error: 'must be true or false' }).meta(about(meaning));

/** A decoder layer of the model, from 0. @param last the last one that fits */
export const layerOf = (
  vlm: Vlm,
  meaning: string,
  { last = vlm.decoder.layers - 1, ...limits }: Limits & { last?: number } = {},
) => whole(meaning, { ...limits, max: last, fits: limits.fits ?? `${vlm.name} has ${vlm.decoder.layers} decoder layers` });

/** Some decoder layers of the model. */
export function layersOf(vlm: Vlm, meaning: string): z.ZodArray<z.ZodNumber> {
  const error = `must be a list of decoder layers from 0 to ${vlm.decoder.layers - 1}, such as [1,2]`;
  const layer = z
    .int({ error })
    .min(0, { error })
    .max(vlm.decoder.layers - 1, { error });
  return z.array(layer, { error }).meta(about(meaning));
}

/** Options of `train` that every training on records takes. */
export const recordTraining = (defaults: {
  steps: number;
  batch: number;
  rate: number;
  hold: number;
  lastRate: number;
  budget: number;
}) => ({
  steps: size('optimizer steps', { max: 1e9, option: '--steps' }).default(defaults.steps),
  batch: size('records per step', { option: '--batch' }).default(defaults.batch),
  rate: real('learning rate', { above: 0, option: '--lr' }).default(defaults.rate),
  hold: real('share of the steps at the constant rate, before it falls to `lastRate`', { min: 0, max: 1 }).default(defaults.hold),
  lastRate: real('share of the rate that is left at the end').default(defaults.lastRate),
  budget: real('bytes of frozen states kept in memory').default(defaults.budget),
  startWeights: z
    .string({ error: 'must be the path of a weights file' })
    .meta(about('weights of an earlier training that this one goes on from', '--start'))
    .optional(),
});

/** The largest norm of a step's gradient, with its default. */
export const clipping = (largest: number) => real("largest norm of a step's gradient", { above: 0 }).default(largest);

/** Records whose gradients are computed at once. */
export const microBatch = () =>
  size('records whose gradients are computed at once; the whole batch by default', { option: '--micro-batch' }).optional();

/** A check of schemas with a width that is split into heads. */
export function headsDivide({ width, heads }: { width: number; heads: number }, context: z.RefinementCtx): void {
  if (width % heads !== 0)
    context.addIssue({ code: 'custom', path: ['width'], message: `must be a multiple of heads, which is ${heads}` });
}

/** Options of `edit` that every descent on one edit takes. */
export const descentSettings = (defaults: DescentSettings) => ({
  steps: whole('most steps of an edit', { min: 1 }).default(defaults.steps),
  rate: real('learning rate').default(defaults.rate),
  decay: real('decoupled weight decay').default(defaults.decay),
  until: real('steps end once the loss is below').default(defaults.until),
});

/** The name that is nearest to a mistyped one: by the edits that turn one into the other, at most a third of its letters. */
export function nearest(given: string, names: readonly string[]): string | undefined {
  const distance = (a: string, b: string): number => {
    let before = Array.from({ length: b.length + 1 }, (_, j) => j);
    let last: number[] = [];
    for (let i = 1; i <= a.length; i++) {
      const row = [i];
      for (let j = 1; j <= b.length; j++) {
        row[j] = Math.min(row[j - 1]! + 1, before[j]! + 1, before[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
        if (a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] && i > 1 && j > 1) row[j] = Math.min(row[j]!, last[j - 2]! + 1);
      }
      [last, before] = [before, row];
    }
    return before[b.length]!;
  };
  const ranked = names.map((name) => ({ name, far: distance(given.toLowerCase(), name.toLowerCase()) }));
  const [best] = ranked.sort((a, b) => a.far - b.far);
  return best !== undefined && best.far <= Math.max(1, Math.ceil(given.length / 3)) ? best.name : undefined;
}

/**
 * Settings with their defaults.
 * @param what they are settings of, such as `ft-l`
 * @throws Error that names the setting that does not exist and the nearest one, or the value that does not fit and what fits
 */
export function parseSettings<S extends SettingsSchema>(what: string, schema: S, given: Settings = {}): z.output<S> {
  const names = Object.keys(schema.shape);
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    if (names.length === 0) throw new Error(`${what} has no settings of an edit, so ${name} cannot be set`);
    const near = nearest(name, names);
    throw new Error(
      `${what} has no setting ${name}${near === undefined ? '' : ` (did you mean ${near}?)`}; settings: ${names.join(', ')}`,
    );
  }
  return checked(schema, given, (name) => `the setting ${name} of ${what}`);
}

function checked<S extends SettingsSchema>(schema: S, given: Settings, named: (name: string) => string): z.output<S> {
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  const name = String(path[0]);
  const value = given[name] === undefined ? schema.shape[name]?.safeParse(undefined).data : given[name];
  throw new Error(`${named(name)} ${message}, got ${JSON.stringify(value) ?? 'none'}`);
}

/** Settings that stand in a file: names that the schema does not know are left, for they are another version's. @param where the file */
export const fitted = <S extends SettingsSchema>(where: string, schema: S, given: Settings): z.output<S> =>
  checked(schema, given, (name) => `${where}: the setting ${name}`);

/** A field without its default. */
function bare(field: z.ZodType): z.ZodType {
  return field instanceof z.ZodDefault || field instanceof z.ZodOptional ? bare(field.unwrap() as z.ZodType) : field;
}

/** Fields as files hold them: those that are needed must be there, the others may. */
export const inFile = (fields: Readonly<Record<string, z.ZodType>>, needed: readonly string[] = []): SettingsSchema =>
  z.object(
    Object.fromEntries(
      Object.entries(fields).map(([name, field]) => [name, needed.includes(name) ? bare(field) : bare(field).optional()]),
    ),
  );

/** For editors whose edits have no settings. */
export const noSettings = (editor: string, given: Settings | undefined): void => void parseSettings(editor, z.object({}), given);

/** What a field says of itself, with or without a default around it. */
function noted(field: z.ZodType): { description?: string; option?: string } {
  const meta = field.meta();
  if (meta?.description !== undefined) return meta as { description?: string; option?: string };
  return 'unwrap' in field ? noted((field as z.ZodOptional<z.ZodType>).unwrap()) : {};
}

/** The settings that options of `train` set, by the name of the option. */
export const trainOptionNames = {
  layer: '--layer',
  steps: '--steps',
  batch: '--batch',
  microBatch: '--micro-batch',
  rate: '--lr',
  startWeights: '--start',
} as const;

/** Options of `train` as the settings that they are, and the options that this editor has not. */
export function namedSettings(
  schema: SettingsSchema,
  options: Partial<TrainOptions>,
): { settings: Settings; missing: readonly string[] } {
  const settings: Record<string, Settings[string]> = { ...options.settings };
  const missing: string[] = [];
  for (const [name, option] of Object.entries(trainOptionNames) as [keyof typeof trainOptionNames, string][]) {
    const value = options[name];
    if (value === undefined) continue;
    const field = Object.entries(schema.shape).find(([, one]) => noted(one).option === option);
    if (field === undefined) missing.push(option);
    else settings[field[0]] = value;
  }
  return { settings, missing };
}

/** What a training is set to: its options, its own settings, and defaults. Options that the editor has not are left out. */
export const trainingConfig = <S extends SettingsSchema>(
  editor: string,
  schema: S,
  options: Partial<TrainOptions>,
): z.output<S> => parseSettings(editor, schema, namedSettings(schema, options).settings);

/** Records of a batch whose gradients are computed at once. */
export const withMicroBatch = <C extends { batch: number; microBatch?: number | undefined }>(
  config: C,
): C & { microBatch: number } => ({
  ...config,
  microBatch: Math.min(config.microBatch ?? config.batch, config.batch),
});

/** What a schema says of each setting, for a table: name or option, meaning, and the value it has by default or by what is given. @throws Error when a setting has no meaning */
export function describeSettings(
  what: string,
  schema: SettingsSchema,
  given: Settings = {},
): { name: string; option: string | undefined; meaning: string; value: unknown }[] {
  const values = parseSettings(what, schema, given);
  return Object.entries(schema.shape).map(([name, field]) => {
    const { description, option } = noted(field);
    if (description === undefined) throw new Error(`${what}: the schema of the setting ${name} does not say what it means`);
    return { name, option, meaning: description, value: values[name] };
  });
}
