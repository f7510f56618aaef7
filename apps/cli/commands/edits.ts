/** `visedit edits`: a folder of edits with a history, as a person works with it. */
import { type CommandGroup, entry } from '../frame/command.ts';

export const command: CommandGroup = {
  details:
    'A ledger is a folder of edits in sets, each with its history. Every edit has a scope card: whether it takes, under how many wordings and pictures, and what else it changes. The folder that `visedit serve --data-dir` keeps is a ledger, too. Commands that change a ledger take it for themselves; those that only look may run beside a server. A kill at any moment loses nothing that was confirmed. docs/edits.md is a walk-through.',
  commands: {
    add: entry('make an edit, or take one from a file, measure its scope card, and store it', () => import('./edits/add.ts')),
    list: entry('list the edits of a set with their scope cards in numbers', () => import('./edits/list.ts')),
    show: entry("show one edit with its whole scope card, or a set's history", () => import('./edits/show.ts')),
    test: entry('test a whole set: a regression test with an exit code', () => import('./edits/test.ts')),
    conflicts: entry('list edits that contradict or repeat each other', () => import('./edits/conflicts.ts')),
    disable: entry('switch edits off', () => import('./edits/disable.ts')),
    enable: entry('switch edits on again', () => import('./edits/enable.ts')),
    revert: entry('undo the last change of a set, or restore an earlier revision', () => import('./edits/revert.ts')),
    export: entry('write the edits as a LoRA adapter for peft, or as a whole model', () => import('./edits/export.ts')),
    merge: entry("take another ledger's edits into a set", () => import('./edits/merge.ts')),
  },
};
