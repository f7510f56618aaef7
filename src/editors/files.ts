/**
 * Edits and editors' weights as files: one safetensors file each, whose metadata say what it is, for which model, and how it was made. An edit that
 * acts through weights names them by their fingerprint; they stand beside it, once for all edits of a folder, or in it (a bundle).
 */

import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { parseJson } from '../files/json.ts';
import { openSafetensors, type SafetensorsFile, writeSafetensors } from '../files/safetensors.ts';
import { parseConfig } from '../files/schema.ts';
import type { Tensor } from '../graph/dtype.ts';
import { type Edit, type EditorWeights, fingerprintOf, type ModelId, type Settings } from './editor.ts';
import { origins } from './forms.ts';

/** Version 1 had no weights beside an edit. */
const VERSIONS = ['1', '2'];
/** Before the names of weights in a bundle. */
const IN_BUNDLE = 'weights.';
const named = z.object({ fingerprint: z.string().regex(/^[0-9a-f]{64}$/) });
const model = z.object({ name: z.string(), fingerprint: z.string() });
const settings = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null(), z.array(z.number())]));
const request = z.object({ prompt: z.string(), target: z.string() });

function metadata(
  kind: 'edit' | 'weights',
  editor: string,
  of: ModelId,
  values: Settings,
  more: Record<string, unknown> = {},
): Record<string, string> {
  return {
    format: `visedit ${kind}`,
    version: more.weights === undefined ? '1' : '2',
    editor,
    model: JSON.stringify(of),
    settings: JSON.stringify(values),
    ...Object.fromEntries(
      Object.entries(more)
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => [name, JSON.stringify(value)]),
    ),
  };
}

function field<T>(file: SafetensorsFile, name: string, schema: z.ZodType<T>): T {
  const text = Object.hasOwn(file.metadata, name) ? file.metadata[name] : undefined;
  if (text === undefined)
    throw new Error(`${file.path}: metadata ${name} is missing; this is not a file that visedit wrote, or it is damaged`);
  const what = `${file.path}: metadata ${name}`;
  return parseConfig(what, schema, parseJson(text, what));
}

function open(
  path: string,
  kind: 'edit' | 'weights',
): { file: SafetensorsFile; editor: string; tensors: Map<string, Tensor<'float32'>> } {
  const file = openSafetensors(path);
  const { format, version, editor } = file.metadata;
  if (format !== `visedit ${kind}`) {
    const given =
      format === 'visedit edit'
        ? `an edit by the editor ${editor}`
        : format === 'visedit weights'
          ? `weights of the editor ${editor}`
          : 'something else';
    const wanted = kind === 'edit' ? 'edit, which `visedit edit` writes' : "editor's weights, which `visedit train` writes";
    throw new Error(`${path} is not an ${wanted}; it holds ${given}`);
  }
  if (!VERSIONS.includes(version ?? ''))
    throw new Error(`${path} has version ${version}; this visedit reads versions ${VERSIONS.join(' and ')}`);
  if (editor === undefined || !/^[\w-]+$/.test(editor))
    throw new Error(`${path}: metadata editor is missing, or no name of an editor`);
  const tensors = new Map<string, Tensor<'float32'>>();
  for (const [name, entry] of file.entries) {
    const t = file.readTensor(entry, { as: 'float32' }) as Tensor<'float32'>;
    if (!t.data.every(Number.isFinite)) throw new Error(`${path}: ${name} has values that are not finite`);
    tensors.set(name, t);
  }
  return { file, editor, tensors };
}

/** The name of weights in a folder of edits. */
const weightsName = (editor: string, fingerprint: string): string => `${editor}-${fingerprint.slice(0, 16)}.safetensors`;

/** The file beside an edit that holds the weights which it acts through; undefined: it stands alone. */
export function weightsBeside(path: string): string | undefined {
  const file = openSafetensors(path);
  const { weights, bundle, editor = '' } = file.metadata;
  if (weights === undefined || bundle !== undefined) return undefined;
  return join(dirname(path), weightsName(editor, field(file, 'weights', named).fingerprint));
}

/** Weights by fingerprint, so that edits read one after the other share them as those made together do. */
const known = new Map<string, WeakRef<EditorWeights>>();

/** The value that stands for these weights in this process. */
function shared(weights: EditorWeights): EditorWeights {
  const fingerprint = fingerprintOf(weights);
  const there = known.get(fingerprint)?.deref();
  if (there !== undefined) return there;
  known.set(fingerprint, new WeakRef(weights));
  return weights;
}

/**
 * Writes an edit as one safetensors file, whose metadata say what it is and for which model. Weights that it acts through are written beside it,
 * unless they are there.
 * @param bundle the weights into the same file, so that it stands alone
 */
export function writeEdit(path: string, edit: Edit, { bundle = false }: { bundle?: boolean } = {}): void {
  const { editor, model, settings, request, tensors } = edit;
  const weights = edit.weights && shared(edit.weights);
  const fingerprint = weights && fingerprintOf(weights);
  if (weights !== undefined && !bundle) {
    const beside = join(dirname(path), weightsName(editor, fingerprint!));
    if (!existsSync(beside)) writeEditorWeights(beside, weights);
  }
  const more = { request, weights: fingerprint && { fingerprint }, bundle: bundle ? weights?.settings : undefined };
  const inside = bundle ? [...(weights?.tensors ?? [])].map(([name, t]) => [IN_BUNDLE + name, t] as const) : [];
  writeSafetensors(path, new Map([...tensors, ...inside]), metadata('edit', editor, model, settings, more));
}

/**
 * An edit from its file, and the weights that it acts through: out of the same file, or from beside it.
 * @throws Error when the file is damaged or no edit, or its weights are not there or are others
 */
export function readEdit(path: string): Edit {
  const { file, editor, tensors } = open(path, 'edit');
  const edit = {
    editor,
    model: field(file, 'model', model),
    settings: field(file, 'settings', settings),
    request: field(file, 'request', request),
    tensors,
  };
  const whole = file.metadata.version === '1' ? withOwnWeights(path, edit) : { ...edit, ...weightsAndTensors(path, file, edit) };
  origins.set(whole, path);
  return whole;
}

function weightsAndTensors(path: string, file: SafetensorsFile, edit: Edit): Pick<Edit, 'tensors' | 'weights'> {
  const { editor, model, tensors } = edit;
  const { fingerprint } = field(file, 'weights', named);
  const weights = known.get(fingerprint)?.deref();
  if (file.metadata.bundle !== undefined) {
    const [own, inside] = divided(tensors, (name) => !name.startsWith(IN_BUNDLE));
    const unnamed = new Map([...inside].map(([name, t]) => [name.slice(IN_BUNDLE.length), t]));
    const carried = located(path, { editor, model, settings: field(file, 'bundle', settings), tensors: unnamed });
    return { tensors: own, weights: asNamed(path, path, fingerprint, carried) };
  }
  const beside = join(dirname(path), weightsName(editor, fingerprint));
  if (!existsSync(beside))
    throw new Error(
      `${path} acts through weights of ${editor}, and ${beside} is missing; put that file there, or make the edit with --bundle, which keeps them in it`,
    );
  return { tensors, weights: asNamed(path, beside, fingerprint, weights ?? readEditorWeights(beside)) };
}

function asNamed(path: string, place: string, fingerprint: string, weights: EditorWeights): EditorWeights {
  if (fingerprintOf(weights) !== fingerprint)
    throw new Error(
      `${place} holds other weights (${fingerprintOf(weights).slice(0, 12)}) than those that ${path} was made with (${fingerprint.slice(0, 12)}); put those in their place`,
    );
  return shared(weights);
}

function located<T extends object>(path: string, made: T): T {
  origins.set(made, path);
  return made;
}

const divided = <T>(all: ReadonlyMap<string, T>, isFirst: (name: string) => boolean): [Map<string, T>, Map<string, T>] => [
  new Map([...all].filter(([name]) => isFirst(name))),
  new Map([...all].filter(([name]) => !isFirst(name))),
];

/** What edits of version 1 held of their own where they carried the weights: these tensors and settings. */
const ownOfVersion1: Readonly<Record<string, { tensors: readonly string[]; settings: readonly string[] }>> = {
  vead: { tensors: ['signal', 'key'], settings: ['promptEnd'] },
  serac: { tensors: ['embedding'], settings: [] },
  lte: { tensors: ['key'], settings: ['threshold'] },
};

function withOwnWeights(path: string, edit: Edit): Edit {
  const { editor, model, tensors, settings } = edit;
  const own = Object.hasOwn(ownOfVersion1, editor) ? ownOfVersion1[editor] : undefined;
  if (own === undefined) return edit;
  const [mine, theirs] = divided(tensors, (name) => own.tensors.includes(name));
  const of = (isMine: boolean): Settings =>
    Object.fromEntries(Object.entries(settings).filter(([name]) => own.settings.includes(name) === isMine));
  const weights = located(path, {
    editor,
    model,
    settings: editor === 'lte' ? settings : of(false),
    tensors: new Map([...theirs].map(([name, t]) => [name.replace(/^weight\./, ''), t])),
  });
  return { ...edit, settings: of(true), tensors: mine, weights: shared(weights) };
}

/** The file of what an editor learned, in the folder of its training. */
export const trainedWeights = (folder: string): string => join(folder, 'weights.safetensors');

/** Writes an editor's weights as one safetensors file, whose metadata say what they are and for which model. */
export function writeEditorWeights(path: string, weights: EditorWeights): void {
  writeSafetensors(path, weights.tensors, metadata('weights', weights.editor, weights.model, weights.settings));
}

/**
 * What an editor learned, from its file.
 * @throws Error when the file is damaged, or holds no editor's weights
 */
export function readEditorWeights(path: string): EditorWeights {
  const { file, editor, tensors } = open(path, 'weights');
  return located(path, { editor, model: field(file, 'model', model), settings: field(file, 'settings', settings), tensors });
}
