/** `visedit edits test`: the whole set as a regression test. */

import { editorModules, loadEditors } from '../../editor-option.ts';
import { defineCommand } from '../../frame/command.ts';
import { flag, outFile } from '../../frame/values.ts';
import { askingOptions, ledgerArgument, openModel } from '../../ledger.ts';

export const command = defineCommand({
  details: `Asks every question of every scope card under the whole set. Each edit that is on must give its target; of the questions around it, those that were right when they were last measured must be right again. The exit code is 1 when one is not. What was wrong before is told of, and fails with --strict only.

The ledger is only read, so a test may run beside a server, and twice with the same result. --update writes down what was found, as what the next test compares with.`,
  arguments: { ledger: ledgerArgument },
  options: {
    junit: outFile("file for the result as JUnit's XML", { endings: ['.xml'] }),
    strict: flag('what was wrong before fails, too'),
    update: flag('write the cards into the ledger'),
    editor: editorModules,
    ...askingOptions,
  },
  examples: ['edits test corrections', 'edits test corrections --junit edits.xml'],
  async run({ ledger: reference, junit, strict, update, editor: modules, maxNewTokens, ...given }, context) {
    const [{ findSet, openLedger }, { measureSet }, { regressionOf, toJunit }, { setId }, { writeFileAtomic }] =
      await Promise.all([
        import('../../../../src/ledger/reference.ts'),
        import('../../../../src/ledger/scope.ts'),
        import('../../../../src/ledger/regression.ts'),
        import('../../../../src/ledger/ledger.ts'),
        import('../../../../src/files/atomic.ts'),
      ]);
    await loadEditors(modules);
    const ledger = openLedger(reference, update ? 'change' : 'read');
    try {
      const set = findSet(ledger, reference);
      const stored = ledger.active(set);
      if (stored.length === 0) throw new Error(`no edit of ${setId(set)} is on; switch one on with \`visedit edits enable\``);
      const vlm = await openModel(stored[0]!, given, context);
      const began = performance.now();
      const bar = context.progress(stored.length, 'Testing', { unit: 'edits' });
      const cards = await measureSet(vlm, ledger, setId(set), {
        maxNewTokens,
        signal: context.signal,
        onProgress: (done) => bar.update(done),
      });
      bar.finish();
      await vlm.release();
      const result = regressionOf(stored, cards, { strict });
      if (update) ledger.measured(setId(set), cards);
      if (junit !== undefined)
        writeFileAtomic(junit, toJunit(`visedit edits ${setId(set)}`, result, (performance.now() - began) / 1000));
      const { passed, failed, known, skipped } = result;
      const wrong = result.edits.flatMap(({ edit, cases }) =>
        cases
          .filter((one) => one.result !== 'passed')
          .map(({ kind, prompt, expected, said, result: how }) => [edit.id, how, kind, prompt, expected, said]),
      );
      return {
        data: {
          ...{ ledger: reference.folder, set: setId(set), passed, failed, known, skipped },
          edits: result.edits.map(({ edit: { id, prompt, target }, cases }) => ({ id, prompt, target, cases })),
        },
        text: [
          ...(wrong.length === 0
            ? []
            : [context.table({ head: ['edit', '', 'asked', 'prompt', 'expected', 'said'], rows: wrong }), '']),
          `${stored.length} edits: ${passed} questions right, ${failed} failed, ${known} wrong as before${skipped === 0 ? '' : `, ${skipped} edits without a picture left out`}.`,
        ].join('\n'),
        exitCode: failed > 0 ? 1 : 0,
      };
    } finally {
      ledger.close();
    }
  },
});
