/** Edits that a command applies: from files, and from ledgers. */
import type { Edit } from '../../src/editors/editor.ts';
import type { LedgerReference } from '../../src/ledger/reference-text.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { editorModules, loadEditors } from './editor-option.ts';
import { file, repeatable } from './frame/values.ts';
import { editsOption } from './ledger.ts';

export const editOptions = {
  edit: repeatable(file('edit file to apply')),
  edits: editsOption,
  editor: editorModules,
};

export interface GivenEdits {
  readonly edit: readonly string[];
  readonly edits: readonly LedgerReference[];
  readonly editor: readonly string[];
}

/**
 * Reads edit files before the model is opened, and what ledgers hold for it when it is.
 * @returns the edits for the model, those from files first
 */
export async function readGivenEdits({ edit, edits, editor }: GivenEdits): Promise<(vlm: Vlm) => Edit[]> {
  const [{ readEdits }, { activeEdits }] = await Promise.all([
    import('../../src/editors/apply.ts'),
    import('../../src/ledger/reference.ts'),
  ]);
  await loadEditors(editor);
  const read = readEdits(edit);
  return (vlm) => [...read, ...edits.flatMap((ledger) => activeEdits(vlm, ledger))];
}
