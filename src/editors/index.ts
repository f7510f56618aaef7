/** All editors, one line each; a file is loaded when its editor is used. */
import type { Editor } from './editor.ts';

export const editors = {
  'ft-l': async () => (await import('./ft-l.ts')).ftL,
  'ft-v': async () => (await import('./ft-v.ts')).ftV,
  ike: async () => (await import('./ike.ts')).ike,
  ke: async () => (await import('./ke.ts')).ke,
  lte: async () => (await import('./lte/lte.ts')).lte,
  mend: async () => (await import('./mend.ts')).mend,
  serac: async () => (await import('./serac/serac.ts')).serac,
  tp: async () => (await import('./tp.ts')).tp,
  vead: async () => (await import('./vead/vead.ts')).vead,
} satisfies Record<string, () => Promise<Editor>>;

export type EditorId = keyof typeof editors;

/** Names of all editors: values of `--editor`, and of `editorNamed`. */
export const editorIds = Object.keys(editors) as EditorId[];

/**
 * The editor of that name; its code is loaded now.
 * @throws Error that names the editors there are
 */
export function editorNamed(id: string): Promise<Editor> {
  if (!Object.hasOwn(editors, id)) throw new Error(`there is no editor ${JSON.stringify(id)}; editors: ${editorIds.join(', ')}`);
  return editors[id as EditorId]();
}
