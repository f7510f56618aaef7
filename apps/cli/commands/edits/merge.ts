/** `visedit edits merge`: another ledger's edits in this one. */
import { defineCommand } from '../../frame/command.ts';
import { flag } from '../../frame/values.ts';
import { changedLines, conflictLines, ledgerArgument } from '../../ledger.ts';
import { afterChange, changingOptions, stateText } from '../../switching.ts';

export const command = defineCommand({
  details:
    'Takes all edits that are on in the other ledger, in their order, behind those that are there. What is there already (the same question about the same picture, the same target) is passed over, so a merge that was interrupted may be run again. When an edit contradicts one that is there, nothing is taken and the exit code is 1; --force takes all.',
  arguments: { ledger: ledgerArgument, from: { ...ledgerArgument, help: 'the ledger whose edits are taken' } },
  options: { force: flag('take edits that contradict others, too'), ...changingOptions },
  examples: ['edits merge corrections corrections-of-others'],
  async run({ ledger: reference, from, force, ...given }, context) {
    const [{ findSet, openLedger, defaultSet }, { setId }, { mergeInto }] = await Promise.all([
      import('../../../../src/ledger/reference.ts'),
      import('../../../../src/ledger/ledger.ts'),
      import('../../../../src/ledger/merging.ts'),
    ]);
    const source = openLedger(from, 'read');
    const theirs = findSet(source, from);
    const ledger = openLedger(reference, 'make');
    try {
      const id = setId({ model: theirs.model, name: reference.name ?? defaultSet });
      const { taken, passed, conflicts } = await mergeInto(ledger, reference.name ?? defaultSet, source, theirs, force);
      const contradictions = conflicts.filter(({ kind }) => kind === 'contradicts');
      if (taken.length === 0 && contradictions.length > 0)
        return {
          data: { ledger: reference.folder, set: id, taken, passed, conflicts, changed: [] },
          text: [...conflictLines(source, contradictions), 'Nothing was taken; --force takes all.'].join('\n'),
          exitCode: 1,
        };
      const { changed } = taken.length === 0 ? { changed: [] } : await afterChange(ledger, id, given, context);
      return {
        data: { ledger: reference.folder, set: id, taken, passed, conflicts, changed },
        text: [
          ...changedLines(changed),
          `${taken.length} edits taken, ${passed.length} there already.`,
          ...(ledger.sets.some((one) => setId(one) === id) ? [await stateText(ledger, ledger.set(id))] : []),
        ].join('\n'),
      };
    } finally {
      ledger.close();
    }
  },
});
