/** The option `--editor`: the id of an editor, or a module that exports one. */
import { editorIds } from '../../src/editors/index.ts';
import { findEditor, namesEditor } from '../../src/editors/outside.ts';
import { choice, repeatable, text, type Value } from './frame/values.ts';

/** @param help what the editor is for @param required false where several may be given */
export function editorOption(help: string, required = true): Value<string> {
  const known = choice(`${help}, or a module that exports one, as ./mine.js`, editorIds, { required: true });
  return { ...known, required, parse: (given) => (namesEditor(given) ? given : known.parse(given)) };
}

/** For commands that read edit files, which name the editor that made them. */
export const editorModules = repeatable(
  text('module of an editor from outside that made some of the edits, as ./mine.js', { placeholder: 'MODULE' }),
);

export async function loadEditors(modules: readonly string[]): Promise<void> {
  for (const one of modules) await findEditor(one);
}
