/** `visedit edits show`: one edit with its scope card, or the history of a set. */
import { defineCommand } from '../../frame/command.ts';
import { text } from '../../frame/values.ts';
import { changedLines, editData, ledgerArgument } from '../../ledger.ts';

export const command = defineCommand({
  details: "With the number or id of an edit: what it is, and its card, question by question. Without: the set's revisions.",
  arguments: { ledger: ledgerArgument, edit: text('number of the edit in its set, or its id') },
  examples: ['edits show corrections 1', 'edits show corrections'],
  async run({ ledger: reference, edit: named }, context) {
    const [{ findEdit, findSet, openLedger }, { lastCard }, { revisionOf }, { setId }] = await Promise.all([
      import('../../../../src/ledger/reference.ts'),
      import('../../../../src/ledger/cards.ts'),
      import('../../../../src/ledger/history.ts'),
      import('../../../../src/ledger/ledger.ts'),
    ]);
    const ledger = openLedger(reference, 'read');
    const set = findSet(ledger, reference);
    const when = (at: number): string => new Date(1000 * at).toISOString().replace('T', ' ').slice(0, 16);
    if (named === undefined) {
      const { revisions } = set.history;
      const rows = revisions.map(({ revision, at, action, edit, to }) => [
        ...[String(revision), when(at), action],
        edit ?? (to === null ? '' : `to revision ${to}`),
      ]);
      return {
        data: {
          ledger: reference.folder,
          set: setId(set),
          revision: revisionOf(set.history),
          entries: set.history.entries,
          revisions,
        },
        text: `${setId(set)}, revision ${revisionOf(set.history)}\n${context.table({ head: ['', 'when', 'change', ''], rows })}`,
      };
    }
    const edit = ledger.edit(findEdit(set, named));
    const card = lastCard(edit);
    const data = {
      ...(await editData(ledger, edit)),
      file: ledger.path(edit.id),
      pictureFile: edit.picture ? ledger.picturePath(edit.id) : null,
    };
    const under = edit.measured === undefined ? 'alone' : `under the set at revision ${edit.measured.revision}`;
    const facts = [
      ['id', edit.id],
      ['editor', edit.editor],
      ['model', edit.model],
      ['prompt', edit.prompt],
      ['target', edit.target],
      ['on', data.enabled ? `yes, number ${data.position}` : 'no'],
      ['made', when(edit.created)],
      ...(edit.note === null ? [] : [['note', edit.note]]),
      ['file', data.file],
    ];
    return {
      data,
      text: [
        ...facts.map(([name, value]) => `${name}: ${value}`),
        ...edit.warnings.map((line) => `warning: ${line}`),
        '',
        ...(card === null
          ? ['It came without a picture, so it has no scope card.']
          : [
              `Its scope card, ${under}:`,
              context.table({
                head: ['asked', 'picture', 'prompt', 'expected', 'before', 'after', ''],
                rows: card.card.map(({ kind, picture, prompt, expected, before, after, ok }) => [
                  ...[kind, picture, prompt, expected, before, after],
                  ok ? 'ok' : 'NO',
                ]),
              }),
              `Probability of the target: ${card.before.probability.toPrecision(3)} before, ${card.after.probability.toPrecision(3)} after.`,
            ]),
        ...(edit.changed?.length ? ['', 'When it was added, earlier edits changed:', ...changedLines(edit.changed)] : []),
      ].join('\n'),
    };
  },
});
