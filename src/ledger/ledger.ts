/**
 * Edits on disk, in sets with a history: `edits/ID.safetensors` as `visedit edit` writes them, their pictures, and `changes.jsonl`, which says
 * what there is. Files are written before a change names them and removed after one names them no more: a process that is killed at any moment
 * finds every change that it had confirmed, and nothing half done.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Edit } from '../editors/editor.ts';
import { readEdit, weightsBeside, writeEdit } from '../editors/files.ts';
import type { EditCheck } from '../evaluation/scope-card.ts';
import { writeFileAtomic } from '../files/atomic.ts';
import { ChangeLog } from '../files/change-log.ts';
import { readJson } from '../files/json.ts';
import { FolderLock } from '../files/lock.ts';
import { MEBIBYTE, readWhole } from '../files/text.ts';
import { type Change, type ChangedEdit, change, formerIndex, type StoredEdit } from './changes.ts';
import { added, deleted, emptyHistory, type History, historyOf, reverted, revisionOf, switched } from './history.ts';

export { editCheck, type StoredEdit } from './changes.ts';

export interface EditSet {
  readonly model: string;
  readonly name: string;
  readonly history: History;
  /** in the order they were made; those whose addition is undone, too */
  readonly members: ReadonlySet<string>;
}

export interface LedgerLimits {
  readonly edits: number;
  readonly editsPerSet: number;
}

export type LedgerErrorCode =
  | 'edit_not_found'
  | 'set_not_found'
  | 'revision_not_found'
  | 'edits_do_not_combine'
  | 'set_full'
  | 'store_full'
  | 'nothing_to_revert';

/** What cannot be done with the edits that there are. */
export class LedgerError extends Error {
  override name = 'LedgerError';
  constructor(
    readonly code: LedgerErrorCode,
    message: string,
    /** what of the request does not fit */
    readonly param: string | undefined,
  ) {
    super(message);
  }
}

export const setId = ({ model, name }: Pick<EditSet, 'model' | 'name'>): string => `${model}@${name}`;

/** Where a ledger keeps the pictures that scope cards ask with. */
export class CardPictures {
  constructor(readonly folder: string) {}

  picturePath(id: string): string {
    return join(this.folder, 'pictures', `${id}.png`);
  }

  /** The file of another picture that the scope card of an edit asks with; they are counted from 1. */
  cardPicturePath(id: string, kind: 'same' | 'other', number: number): string {
    return join(this.folder, 'pictures', `${id}.${kind}-${number}.png`);
  }
}

const now = (): number => Math.floor(Date.now() / 1000);

export class Ledger extends CardPictures {
  readonly #edits = new Map<string, StoredEdit>();
  readonly #sets = new Map<string, EditSet>();
  readonly #log: ChangeLog;
  readonly #lock: FolderLock | undefined;
  /** how often the files of an edit are held */
  readonly #held = new Map<string, number>();

  /**
   * @param options `readOnly`: only looks at what there is, beside a process that may be changing it
   * @throws Error when another process changes the folder, or what the changes name is not there
   */
  constructor(
    folder: string,
    readonly limits: LedgerLimits,
    { readOnly = false }: { readOnly?: boolean } = {},
  ) {
    super(folder);
    if (!readOnly) {
      mkdirSync(join(folder, 'edits'), { recursive: true });
      mkdirSync(join(folder, 'pictures'), { recursive: true });
    }
    this.#lock = readOnly ? undefined : new FolderLock(folder);
    try {
      this.#log = new ChangeLog(join(folder, 'changes.jsonl'), (line) => this.#apply(change.parse(line)), readOnly);
      this.#takeOverIndex(readOnly);
      for (const { id } of this.#edits.values())
        if (!existsSync(this.path(id)))
          throw new Error(`${this.#log.path} names the edit ${id}, but ${this.path(id)} is missing; put the file back`);
      if (readOnly) return;
      if (this.#log.lines > 2 * (this.#edits.size + this.#sets.size) + 1000) this.#log.replace(this.#states());
      this.#sweep();
    } catch (error) {
      this.#lock?.release();
      throw error;
    }
  }

  #takeOverIndex(readOnly: boolean): void {
    const path = join(this.folder, 'index.json');
    if (!existsSync(path)) return;
    const read = formerIndex.safeParse(readJson(path));
    if (!read.success) {
      const { path: at, message } = read.error.issues[0]!;
      throw new Error(`${path} is not an index of edits that this visedit reads: ${at.join('.')}: ${message}`);
    }
    for (const edit of read.data.edits) this.#apply({ do: 'edit', edit });
    for (const set of read.data.sets) this.#apply({ do: 'set', ...set });
    if (readOnly) return;
    this.#log.replace(this.#states());
    rmSync(path);
  }

  /** What there is, as changes. */
  *#states(): Iterable<Change> {
    for (const edit of this.#edits.values()) yield { do: 'edit', edit };
    for (const { model, name, history } of this.#sets.values())
      yield {
        do: 'set',
        model,
        name,
        history: history.revisions.map((one) => ({ ...one, entries: one.entries && [...one.entries] })),
      };
  }

  /** Removes files that no change names and no edit acts through: additions that were not finished, deletions that were, what a kill left. */
  #sweep(): void {
    const stray = ['edits', 'pictures'].flatMap((kind) =>
      readdirSync(join(this.folder, kind))
        .filter((name) => !this.#edits.has(name.split('.')[0]!))
        .map((name) => join(this.folder, kind, name)),
    );
    const inUse = (id: string): string | undefined => {
      try {
        return weightsBeside(this.path(id));
      } catch {
        // A damaged edit is told of when it is asked for.
        return undefined;
      }
    };
    const weights = new Set(stray.length === 0 ? [] : [...this.#edits.keys()].map(inUse));
    for (const path of stray) if (!weights.has(path)) rmSync(path, { force: true });
    for (const name of readdirSync(this.folder))
      if (/^\..*\.tmp$/.test(name) || name === 'server.lock') rmSync(join(this.folder, name), { force: true });
  }

  close(): void {
    this.#log.close();
    this.#lock?.release();
  }

  newId(): string {
    return `edit_${randomBytes(8).toString('hex')}`;
  }

  /** The file of an edit. */
  path(id: string): string {
    return join(this.folder, 'edits', `${id}.safetensors`);
  }

  /** The edit itself, from its file. */
  read(id: string): Edit {
    return readEdit(this.path(id));
  }

  /** The file of an edit for elsewhere: with the weights that it acts through in it. */
  file(id: string): Uint8Array {
    if (weightsBeside(this.path(id)) === undefined) return readFileSync(this.path(id));
    const bundle = join(this.folder, 'edits', `${id}.bundle.safetensors`);
    try {
      writeEdit(bundle, readEdit(this.path(id)), { bundle: true });
      return readFileSync(bundle);
    } finally {
      rmSync(bundle, { force: true });
    }
  }

  get size(): number {
    return this.#edits.size;
  }

  get edits(): readonly StoredEdit[] {
    return [...this.#edits.values()];
  }

  get sets(): readonly EditSet[] {
    return [...this.#sets.values()];
  }

  has(id: string): boolean {
    return this.#edits.has(id);
  }

  /** @throws LedgerError */
  edit(id: string): StoredEdit {
    const edit = this.#edits.get(id);
    if (edit === undefined) throw new LedgerError('edit_not_found', `there is no edit ${JSON.stringify(id)}`, 'id');
    return edit;
  }

  findSet(model: string, name: string): EditSet | undefined {
    return this.#sets.get(setId({ model, name }));
  }

  /** @throws LedgerError */
  set(id: string): EditSet {
    const set = this.#sets.get(id);
    if (set === undefined) throw new LedgerError('set_not_found', `there is no set ${JSON.stringify(id)}`, 'id');
    return set;
  }

  isEnabled({ id, model, set }: StoredEdit): boolean {
    return this.findSet(model, set)?.history.entries.some((one) => one.id === id && one.enabled) ?? false;
  }

  /** The editor whose edits a set holds. */
  editorOf({ members }: EditSet): string | undefined {
    const [first] = members;
    return first === undefined ? undefined : this.#edits.get(first)!.editor;
  }

  /** Edits of a set that act, in their order. */
  active({ history }: EditSet): StoredEdit[] {
    return history.entries.filter(({ enabled }) => enabled).map(({ id }) => this.#edits.get(id)!);
  }

  /**
   * Files of the edits that a new one would stand beside: all of its set, since those that are off may be switched on again.
   * @throws LedgerError when another editor made them or the set is full
   */
  beside(model: string, name: string, editor: string | undefined): { id: string; path: string }[] {
    const set = this.findSet(model, name);
    const other = set && this.editorOf(set);
    if (editor !== undefined && other !== undefined && other !== editor)
      throw new LedgerError(
        'edits_do_not_combine',
        `the set ${name} holds edits of ${other}; edits of ${editor} do not combine with them: use another set`,
        'editor',
      );
    const there = [...(set?.members ?? [])];
    if (there.length >= this.limits.editsPerSet)
      throw new LedgerError(
        'set_full',
        `the set ${name} holds ${there.length} edits, as many as a set may; use another set`,
        'set',
      );
    if (this.#edits.size >= this.limits.edits)
      throw new LedgerError('store_full', `${this.#edits.size} edits are kept, as many as may be; delete some`, undefined);
    return there.map((id) => ({ id, path: this.path(id) }));
  }

  /**
   * Takes an edit whose file is written.
   * @param picture PNG @param card other pictures of its scope card, as PNG
   */
  add(
    edit: Omit<StoredEdit, 'created' | 'bytes' | 'picture'>,
    picture: Uint8Array | undefined,
    card: { readonly same: readonly Uint8Array[]; readonly other: readonly Uint8Array[] } = { same: [], other: [] },
  ): StoredEdit {
    this.beside(edit.model, edit.set, edit.editor);
    const { size } = statSync(this.path(edit.id));
    const whole = { ...edit, created: now(), bytes: size, picture: picture !== undefined };
    try {
      if (picture !== undefined) writeFileAtomic(this.picturePath(edit.id), picture);
      for (const kind of ['same', 'other'] as const)
        card[kind].forEach((png, i) => {
          writeFileAtomic(this.cardPicturePath(edit.id, kind, i + 1), png);
        });
      this.#change({ do: 'add', edit: whole, at: now() });
    } catch (error) {
      this.#remove(edit.id);
      throw error;
    }
    return whole;
  }

  /**
   * Writes down scope cards under a set as it is.
   * @param by the edit whose addition changed earlier ones, and what it changed of them
   */
  measured(
    id: string,
    checks: ReadonlyMap<string, EditCheck>,
    by?: { readonly edit: string; readonly changed: readonly ChangedEdit[] },
  ): void {
    const revision = revisionOf(this.set(id).history);
    const more = by === undefined ? {} : { by: by.edit, changed: [...by.changed] };
    this.#change({ do: 'measure', revision, checks: Object.fromEntries(checks), ...more });
  }

  update(id: string, { enabled, note }: { enabled?: boolean | undefined; note?: string | null | undefined }): StoredEdit {
    const { model, set } = this.edit(id);
    if (note !== undefined) this.#change({ do: 'note', id, note });
    if (enabled !== undefined) {
      const { history } = this.findSet(model, set)!;
      if (switched(history, id, enabled, 0) !== history) this.#change({ do: 'switch', id, enabled, at: now() });
    }
    return this.edit(id);
  }

  delete(id: string): void {
    this.edit(id);
    this.#change({ do: 'delete', id, at: now() });
    this.#drop([id]);
  }

  deleteSet(id: string): void {
    const { model, name, members } = this.set(id);
    this.#change({ do: 'delete-set', model, name });
    this.#drop([...members]);
  }

  /** @throws LedgerError when there is nothing to go back to, or the revision is not known */
  revert(id: string, to?: number): EditSet {
    const { model, name, history } = this.set(id);
    if (reverted(history, to, 0) === undefined) {
      if (to === undefined)
        throw new LedgerError('nothing_to_revert', `no change of the set ${id} is left that could be undone`, 'id');
      throw new LedgerError('revision_not_found', `the set ${id} has no revision ${to}`, 'to');
    }
    this.#change({ do: 'revert', model, name, ...(to === undefined ? {} : { to }), at: now() });
    return this.set(id);
  }

  picture(id: string): Uint8Array | undefined {
    return this.edit(id).picture ? readWhole(this.picturePath(id), 256 * MEBIBYTE) : undefined;
  }

  /** Keeps the files of edits until the function that it returns is called, deleted or not. */
  hold(ids: readonly string[]): () => void {
    for (const id of ids) this.#held.set(id, (this.#held.get(id) ?? 0) + 1);
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      for (const id of ids) {
        const left = this.#held.get(id)! - 1;
        if (left > 0) this.#held.set(id, left);
        else {
          this.#held.delete(id);
          if (!this.#edits.has(id)) this.#remove(id);
        }
      }
    };
  }

  /** On disk first, then in memory; what frees space can be written to a full disk. */
  #change(made: Change): void {
    this.#log.append(made, made.do === 'delete' || made.do === 'delete-set');
    this.#apply(made);
  }

  #apply(made: Change): void {
    switch (made.do) {
      case 'edit':
        this.#edits.set(made.edit.id, made.edit);
        break;
      case 'set': {
        const { model, name, history } = made;
        const members = [...this.#edits.values()].filter((edit) => edit.model === model && edit.set === name);
        const set = { model, name, history: historyOf(history), members: new Set(members.map(({ id }) => id)) };
        const strange = set.history.entries.find(({ id }) => !set.members.has(id));
        if (strange !== undefined)
          throw new Error(`the set ${name} names the edit ${strange.id}, which no line before it adds to this set`);
        this.#sets.set(setId(made), set);
        break;
      }
      case 'add': {
        const { id, model, set: name } = made.edit;
        const set = this.findSet(model, name);
        if (this.#edits.has(id)) throw new Error(`the edit ${id} is there already`);
        this.#edits.set(id, made.edit);
        const members = new Set(set?.members).add(id);
        this.#sets.set(setId({ model, name }), {
          model,
          name,
          history: added(set?.history ?? emptyHistory, id, made.at),
          members,
        });
        break;
      }
      case 'note':
        this.#edits.set(made.id, { ...this.edit(made.id), note: made.note });
        break;
      case 'switch': {
        const { model, set } = this.edit(made.id);
        this.#put(model, set, (history) => switched(history, made.id, made.enabled, made.at));
        break;
      }
      case 'delete': {
        const { model, set } = this.edit(made.id);
        this.#edits.delete(made.id);
        this.#put(model, set, (history) => deleted(history, made.id, made.at), made.id);
        break;
      }
      case 'delete-set':
        for (const id of this.set(setId(made)).members) this.#edits.delete(id);
        this.#sets.delete(setId(made));
        break;
      case 'measure':
        for (const [id, check] of Object.entries(made.checks))
          if (this.has(id)) this.#edits.set(id, { ...this.edit(id), measured: { revision: made.revision, check } });
        if (made.by !== undefined && this.has(made.by))
          this.#edits.set(made.by, { ...this.edit(made.by), changed: made.changed ?? [] });
        break;
      case 'revert':
        this.#put(made.model, made.name, (history) => reverted(history, made.to, made.at) ?? history);
    }
  }

  #put(model: string, name: string, make: (history: History) => History, without?: string): void {
    const { history, members } = this.set(setId({ model, name }));
    const left = without === undefined ? members : new Set([...members].filter((id) => id !== without));
    this.#sets.set(setId({ model, name }), { model, name, history: make(history), members: left });
  }

  /** Removes the files of edits that are deleted, now or when nobody holds them. */
  #drop(ids: readonly string[]): void {
    for (const id of ids) if (!this.#held.has(id)) this.#remove(id);
    this.#log.refill();
  }

  #remove(id: string): void {
    rmSync(this.path(id), { force: true });
    const pictures = join(this.folder, 'pictures');
    for (const name of readdirSync(pictures)) if (name.startsWith(`${id}.`)) rmSync(join(pictures, name), { force: true });
  }
}
