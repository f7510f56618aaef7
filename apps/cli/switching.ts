/** Commands that change which edits of a set act: what they share. */
import type { EditSet, Ledger } from '../../src/ledger/ledger.ts';
import { editorModules, loadEditors } from './editor-option.ts';
import { type Command, defineCommand } from './frame/command.ts';
import type { CommandContext } from './frame/context.ts';
import { repeatable } from './frame/values.ts';
import { askingOptions, changedLines, editArgument, ledgerArgument, measureAgain, measureOption, openModel } from './ledger.ts';

export const changingOptions = { measure: measureOption, editor: editorModules, ...askingOptions };

interface Given {
  readonly measure: 'all' | 'none';
  readonly model: string | undefined;
  readonly maxNewTokens: number;
  readonly editor: readonly string[];
  readonly dtype: Parameters<typeof openModel>[1]['dtype'];
  readonly maxMemory: number | undefined;
  readonly maxPixels: number | undefined;
  readonly minPixels: number | undefined;
}

/** Measures a set that was changed, and says what of its edits changed. */
export async function afterChange(
  ledger: Ledger,
  id: string,
  { measure, maxNewTokens, editor, ...given }: Given,
  context: CommandContext,
) {
  await loadEditors(editor);
  const active = ledger.active(ledger.set(id));
  const first = active[0];
  if (measure === 'none' || first === undefined) return { changed: [] };
  const vlm = await openModel(first, given, context);
  const { changed } = await measureAgain(vlm, ledger, id, context, { maxNewTokens });
  await vlm.release();
  return { changed };
}

export async function stateText(ledger: Ledger, set: EditSet): Promise<string> {
  const { revisionOf } = await import('../../src/ledger/history.ts');
  const on = ledger.active(set).length;
  return `${on} of ${set.history.entries.length} edits are on, at revision ${revisionOf(set.history)}.`;
}

/** `disable` and `enable`. */
export function switchCommand(enabled: boolean): Command {
  const word = enabled ? 'enable' : 'disable';
  return defineCommand({
    details: `${enabled ? 'They act again, in the place that they had in the set.' : 'They stay in the ledger and act no longer.'} Each is a revision of the set's history, which \`visedit edits revert\` undoes. The set's scope cards are measured again.`,
    arguments: { ledger: ledgerArgument, edit: repeatable(editArgument) },
    options: changingOptions,
    examples: [`edits ${word} corrections 1`],
    async run({ ledger: reference, edit: named, ...given }, context) {
      const [{ findEdit, findSet, openLedger }, { setId }] = await Promise.all([
        import('../../src/ledger/reference.ts'),
        import('../../src/ledger/ledger.ts'),
      ]);
      const ledger = openLedger(reference, 'change');
      try {
        const set = findSet(ledger, reference);
        const ids = named.map((one) => findEdit(set, one));
        for (const id of ids) ledger.update(id, { enabled });
        const { changed } = await afterChange(ledger, setId(set), given, context);
        const now = ledger.set(setId(set));
        return {
          data: { ledger: reference.folder, set: setId(set), [`${word}d`]: ids, entries: now.history.entries, changed },
          text: [...changedLines(changed), await stateText(ledger, now)].join('\n'),
        };
      } finally {
        ledger.close();
      }
    },
  }) as unknown as Command;
}
