/** `visedit edits conflicts`: which edits cannot both be right. */
import { defineCommand } from '../../frame/command.ts';
import { conflictLines, ledgerArgument } from '../../ledger.ts';

export const command = defineCommand({
  details:
    'Two edits contradict each other when they ask the same question about the same picture and have different targets. Questions are the prompts and the wordings given with them, white space, case and punctuation aside; pictures are the same when their pixels are. Edits that take alone and not under the set are listed, too. The exit code is 1 when there is a contradiction.',
  arguments: { ledger: ledgerArgument },
  examples: ['edits conflicts corrections'],
  async run({ ledger: reference }) {
    const [{ findSet, openLedger }, { conflictsOf, storedClaim }, { setId }] = await Promise.all([
      import('../../../../src/ledger/reference.ts'),
      import('../../../../src/ledger/conflicts.ts'),
      import('../../../../src/ledger/ledger.ts'),
    ]);
    const ledger = openLedger(reference, 'read');
    const set = findSet(ledger, reference);
    const stored = ledger.active(set);
    const conflicts = conflictsOf(await Promise.all(stored.map((edit) => storedClaim(ledger, edit))));
    const spoiled = stored
      .filter(({ check, measured }) => check?.took === true && measured?.check.took === false)
      .map(({ id, target, measured }) => ({ id, target, said: measured!.check.after.text }));
    const contradictions = conflicts.filter(({ kind }) => kind === 'contradicts').length;
    return {
      data: { ledger: reference.folder, set: setId(set), conflicts, spoiled },
      text: [
        ...conflictLines(ledger, conflicts),
        ...spoiled.map(
          ({ id, target, said }) =>
            `${id} takes alone, and not under the set: ${JSON.stringify(said)} instead of ${JSON.stringify(target)}.`,
        ),
        `${stored.length} edits, ${contradictions} contradictions.`,
      ].join('\n'),
      exitCode: contradictions > 0 ? 1 : 0,
    };
  },
});
