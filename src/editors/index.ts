/** All editors, one line each; a file is loaded when its editor is used. */
import type { Editor } from './editor.ts';

export const editors = {
  'dual-edit': async () => (await import('./dual-edit/dual-edit.ts')).dualEdit,
  'ft-l': async () => (await import('./ft-l.ts')).ftL,
  'ft-v': async () => (await import('./ft-v.ts')).ftV,
  ike: async () => (await import('./ike.ts')).ike,
  ke: async () => (await import('./ke.ts')).ke,
  'live-edit': async () => (await import('./live-edit/live-edit.ts')).liveEdit,
  lte: async () => (await import('./lte/lte.ts')).lte,
  'm-ore': async () => (await import('./m-ore.ts')).mOre,
  mend: async () => (await import('./mend.ts')).mend,
  serac: async () => (await import('./serac/serac.ts')).serac,
  tp: async () => (await import('./tp.ts')).tp,
  vead: async () => (await import('./vead/vead.ts')).vead,
} satisfies Record<string, () => Promise<Editor>>;

export type EditorId = keyof typeof editors;

/** How long `visedit train EDITOR` takes on one core for mini-llava and the 12,000 questions of the mini world; editors that learn nothing are not named. */
export const trainingTimes: Readonly<Partial<Record<EditorId, string>>> = {
  ike: '2 seconds',
  tp: '3 seconds',
  serac: '1 minute',
  ke: '3 minutes',
  'live-edit': '5 minutes',
  mend: '5 minutes',
  vead: '8 minutes',
  'dual-edit': '10 minutes',
  lte: '13 minutes',
};

/** The times as one phrase, for help and messages. */
export const trainingTimeList = Object.entries(trainingTimes)
  .map(([editor, time]) => `${editor} ${time}`)
  .join(', ');

/** Names of all editors: values of `--editor`, and of `editorNamed`. */
export const editorIds = Object.keys(editors) as EditorId[];

const outside = new Map<string, Editor>();

/** Names of all editors, with those that were registered. */
export const allEditorIds = (): string[] => [...editorIds, ...outside.keys()];

/**
 * Makes an editor of one's own known by its id, so that its edits and weights can be read from files and evaluated.
 * @throws Error when the id is taken, or cannot be a part of a file's name
 */
export function registerEditor(editor: Editor): Editor {
  const { id } = editor;
  if (typeof id !== 'string' || !/^[a-z\d][\w.-]{0,39}$/i.test(id))
    throw new Error(`${JSON.stringify(id)} cannot be an editor's id; give up to 40 letters, digits, "-", "_" and "."`);
  if (Object.hasOwn(editors, id) || (outside.get(id) ?? editor) !== editor)
    throw new Error(`there is another editor ${JSON.stringify(id)}; give yours an id of its own`);
  outside.set(id, editor);
  return editor;
}

/**
 * The editor of that id: one of visedit's, whose code is loaded now, or one that was registered.
 * @throws Error that names the editors there are
 */
export async function editorNamed(id: string): Promise<Editor> {
  if (Object.hasOwn(editors, id)) return editors[id as EditorId]();
  const registered = outside.get(id);
  if (registered !== undefined) return registered;
  throw new Error(
    `there is no editor ${JSON.stringify(id)}; editors: ${allEditorIds().join(', ')}; another one's module is named with --editor`,
  );
}
