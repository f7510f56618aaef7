/** What the commands under `edits` share: the ledger that is named, its model, and how scope cards are shown. */
import type { EditCheck } from '../../src/evaluation/scope-card.ts';
import type { Scope, Share } from '../../src/ledger/cards.ts';
import type { Conflict } from '../../src/ledger/conflicts.ts';
import type { EditSet, Ledger, StoredEdit } from '../../src/ledger/ledger.ts';
import { type LedgerReference, parseReference } from '../../src/ledger/reference-text.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import type { CommandContext } from './frame/context.ts';
import { choice, integer, repeatable, text, type Value } from './frame/values.ts';
import { announceMemory, type ModelOptions, modelOptions, openingOf } from './model-options.ts';

const reference = <T extends string>(help: string, required: boolean): Value<T> =>
  ({
    ...text(help, { placeholder: 'LEDGER' }),
    required,
    parse: (given: string) => parseReference(given),
  }) as unknown as Value<T>;

/** The argument that names a ledger. */
export const ledgerArgument = reference(
  'folder of edits; FOLDER#NAME names one of its sets (default: the only one, or `default`)',
  true,
) as unknown as Value<LedgerReference>;

/** The option that names a ledger where edit files are taken, too. */
export const editsOption = repeatable(
  reference(
    'folder of edits to apply, all that are on; FOLDER#NAME names one of its sets',
    false,
  ) as unknown as Value<LedgerReference>,
);

export const editArgument = text('number of the edit in its set, or its id', { required: true });

/** Options of commands that ask the model. */
export const askingOptions = {
  model: text('model folder or built-in name (default: the model that the edits name)', { placeholder: 'MODEL' }),
  maxNewTokens: integer('longest answer, in tokens', { default: 32, min: 1, max: 4096 }),
  ...modelOptions,
};

/** How much a command asks after the set changed. */
export const measureOption = choice(
  'scope cards that are measured again under the changed set: of all its edits, or of none',
  ['all', 'none'],
  { default: 'all' },
);

const noOptions: ModelOptions = { dtype: undefined, maxMemory: undefined, maxPixels: undefined, minPixels: undefined };

/** Opens the model that a set's edits are for. @throws Error when it is another one */
export async function openModel(
  { model, editor }: Pick<StoredEdit, 'model' | 'editor'>,
  given: Partial<ModelOptions> & { model: string | undefined },
  context: CommandContext,
): Promise<Vlm> {
  const [{ builtInModels, loadModel }, { existsSync }] = await Promise.all([
    import('../../src/models/load.ts'),
    import('node:fs'),
  ]);
  if (given.model === undefined && !(builtInModels as readonly string[]).includes(model) && !existsSync(model))
    throw new Error(`the edits of ${editor} are for the model ${model}; say where it is with --model`);
  const vlm = loadModel(given.model ?? model, openingOf({ ...noOptions, ...given }));
  announceMemory(vlm, context);
  return vlm;
}

/** Measures the whole set as it is now, and writes the cards down. @returns what changed of edits that were there */
export async function measureAgain(
  vlm: Vlm,
  ledger: Ledger,
  set: string,
  context: CommandContext,
  { maxNewTokens, by }: { maxNewTokens: number; by?: string | undefined },
) {
  const [{ changedEdits }, { measureSet }] = await Promise.all([
    import('../../src/ledger/cards.ts'),
    import('../../src/ledger/scope.ts'),
  ]);
  let bar: ReturnType<typeof context.progress> | undefined;
  const cards = await measureSet(vlm, ledger, set, {
    maxNewTokens,
    signal: context.signal,
    onProgress: (done, total) => {
      if (total < 2) return;
      bar ??= context.progress(total, 'Measuring', { unit: 'edits' });
      bar.update(done);
    },
  });
  bar?.finish();
  const changed = changedEdits(
    ledger.active(ledger.set(set)).filter(({ id }) => id !== by),
    cards,
  );
  ledger.measured(set, cards, by === undefined ? undefined : { edit: by, changed });
  return { cards, changed };
}

export const shareText = ([count, of]: Share): string => (of === 0 ? '' : `${count}/${of}`);
export const yesNo = (yes: boolean): string => (yes ? 'yes' : 'NO');

const scopeHead = ['free', 'forced', 'reworded', 'pictures', 'same image', 'same question', 'others', 'text'] as const;
const scopeCells = (scope: Scope | undefined): string[] =>
  scope === undefined
    ? scopeHead.map(() => '-')
    : [
        yesNo(scope.free),
        yesNo(scope.forced),
        shareText(scope.rephrasings),
        shareText(scope.pictures),
        shareText(scope.leaks.sameImage),
        shareText(scope.leaks.sameQuestion),
        shareText(scope.leaks.otherPictures),
        shareText(scope.leaks.textOnly),
      ];

/** Edits of a set as rows: what each corrects, and its scope card in numbers. @param shown only these */
export async function editRows(
  ledger: Ledger,
  { history }: EditSet,
  { table }: CommandContext,
  shown?: readonly string[],
): Promise<string> {
  const { lastCard, scopeOf } = await import('../../src/ledger/cards.ts');
  const rows = history.entries.flatMap(({ id, enabled }, i) => {
    if (shown !== undefined && !shown.includes(id)) return [];
    const edit = ledger.edit(id);
    const card = lastCard(edit);
    const scope = scopeCells(card === null ? undefined : scopeOf(card));
    return [[String(i + 1), id, enabled ? 'on' : 'off', edit.prompt, edit.target, ...scope]];
  });
  return table({ head: ['', 'id', '', 'prompt', 'target', ...scopeHead], rows });
}

export const scopeLegend =
  'free, forced: the target comes, generated and teacher forced. reworded, pictures: of so many, the target comes. The last four: answers that changed though they must not, of so many.';

/** One edit as data for --json. */
export async function editData(ledger: Ledger, edit: StoredEdit) {
  const { lastCard, scopeOf } = await import('../../src/ledger/cards.ts');
  const card = lastCard(edit);
  const entries = ledger.findSet(edit.model, edit.set)!.history.entries;
  const position = entries.findIndex(({ id }) => id === edit.id);
  return {
    ...edit,
    position: position < 0 ? null : position + 1,
    enabled: entries[position]?.enabled ?? false,
    scope: card === null ? null : scopeOf(card),
  };
}

export function conflictLines(ledger: Ledger, conflicts: readonly Conflict[]): string[] {
  const named = (id: string): string => (ledger.has(id) ? id : 'the new edit');
  return conflicts.map(({ kind, edits, question, targets }) =>
    kind === 'repeats'
      ? `${named(edits[1])} repeats ${named(edits[0])}: ${JSON.stringify(question)} has the target ${JSON.stringify(targets[0])} in both.`
      : `${named(edits[1])} contradicts ${named(edits[0])}: ${JSON.stringify(question)} has the target ${JSON.stringify(targets[1])} here, and ${JSON.stringify(targets[0])} there.`,
  );
}

export function changedLines(changed: readonly { id: string; lost: readonly string[]; gained: readonly string[] }[]): string[] {
  const lines = changed.flatMap(({ id, lost, gained }) => [
    ...lost.map((question) => `${id} lost: ${question}`),
    ...gained.map((question) => `${id} gained: ${question}`),
  ]);
  const most = 20;
  if (lines.length <= most) return lines;
  return [...lines.slice(0, most), `… and ${lines.length - most} more; --json lists them all.`];
}

export const summaryOf = (cards: Iterable<EditCheck>): { edits: number; took: number } => {
  const all = [...cards];
  return { edits: all.length, took: all.filter(({ took }) => took).length };
};
