/** `visedit edits revert`: a set as it was. */
import { defineCommand } from '../../frame/command.ts';
import { integer } from '../../frame/values.ts';
import { changedLines, ledgerArgument } from '../../ledger.ts';
import { afterChange, changingOptions, stateText } from '../../switching.ts';

export const command = defineCommand({
  details:
    'Undoes the last change that is not undone; again, the one before it. --to restores the state after any revision, which `visedit edits show` lists; 0 is the empty set. Reverting is a change, too: nothing leaves the history.',
  arguments: { ledger: ledgerArgument },
  options: { to: integer('revision to restore', { min: 0 }), ...changingOptions },
  examples: ['edits revert corrections', 'edits revert corrections --to 3'],
  async run({ ledger: reference, to, ...given }, context) {
    const [{ findSet, openLedger }, { setId }] = await Promise.all([
      import('../../../../src/ledger/reference.ts'),
      import('../../../../src/ledger/ledger.ts'),
    ]);
    const ledger = openLedger(reference, 'change');
    try {
      const id = setId(findSet(ledger, reference));
      const set = ledger.revert(id, to);
      const { changed } = await afterChange(ledger, id, given, context);
      return {
        data: {
          ledger: reference.folder,
          set: id,
          revision: set.history.revisions.at(-1)!.revision,
          entries: set.history.entries,
          changed,
        },
        text: [...changedLines(changed), await stateText(ledger, set)].join('\n'),
      };
    } finally {
      ledger.close();
    }
  },
});
