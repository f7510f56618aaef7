/** `visedit edits list`: the edits of a set, one a line. */
import { defineCommand } from '../../frame/command.ts';
import { editData, editRows, ledgerArgument, scopeLegend } from '../../ledger.ts';

export const command = defineCommand({
  details: 'Without a name all sets of the folder are listed.',
  arguments: { ledger: ledgerArgument },
  examples: ['edits list corrections'],
  async run({ ledger: reference }, context) {
    const [{ openLedger }, { revisionOf }, { setId }] = await Promise.all([
      import('../../../../src/ledger/reference.ts'),
      import('../../../../src/ledger/history.ts'),
      import('../../../../src/ledger/ledger.ts'),
    ]);
    const ledger = openLedger(reference, 'read');
    const sets = ledger.sets.filter(({ name }) => reference.name === undefined || name === reference.name);
    if (sets.length === 0)
      throw new Error(
        `${reference.folder} has no set ${reference.name ?? ''}; sets: ${ledger.sets.map(({ name }) => name).join(', ') || 'none'}`,
      );
    const data = await Promise.all(
      sets.map(async (set) => ({
        id: setId(set),
        model: set.model,
        name: set.name,
        editor: ledger.editorOf(set) ?? null,
        revision: revisionOf(set.history),
        edits: await Promise.all(set.history.entries.map(({ id }) => editData(ledger, ledger.edit(id)))),
      })),
    );
    const lines = await Promise.all(
      sets.map(async (set) => {
        const { revision, editor, edits } = data.find(({ id }) => id === setId(set))!;
        const stale = edits.some(({ enabled, measured }) => enabled && measured?.revision !== revision);
        return [
          `${setId(set)}: ${edits.length} edits of ${editor ?? 'no editor'}, revision ${revision}`,
          await editRows(ledger, set, context),
          ...(stale
            ? ['Some cards are of an earlier revision of the set; `visedit edits test --update` measures them again.']
            : []),
        ].join('\n');
      }),
    );
    return { data: { ledger: reference.folder, sets: data }, text: [...lines, scopeLegend].join('\n\n') };
  },
});
