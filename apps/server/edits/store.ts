/**
 * Edits on disk: `edits/ID.safetensors` as `visedit edit` writes them, `pictures/ID.png`, and `index.json`, which says what there is. Files are
 * written before the index names them and removed after it names them no more, and each file appears whole or not at all: a server that is
 * killed at any moment finds every change that it had confirmed, and nothing half done.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { hardKinds } from '../../../src/evaluation/metrics.ts';
import { writeFileAtomic } from '../../../src/files/atomic.ts';
import { readJson } from '../../../src/files/json.ts';
import { queryKinds } from '../../../src/input/records.ts';
import { ApiError } from '../errors.ts';
import type { Limits } from '../options.ts';
import { added, deleted, entriesOf, type History, reverted, switched } from './history.ts';
import { FolderLock } from './lock.ts';

const entry = z.object({ id: z.string(), enabled: z.boolean() });
const revision = z.object({
  revision: z.number(),
  at: z.number(),
  action: z.enum(['add', 'enable', 'disable', 'delete', 'revert']),
  edit: z.string().nullable(),
  to: z.number().nullable(),
  entries: z.array(entry),
  undo: z.number().nullable(),
});
const state = z.object({ text: z.string(), probability: z.number() });
/** Whether an edit took, as it was made; see src/evaluation/scope-card.ts. */
export const editCheck = z.object({
  took: z.boolean(),
  exact: z.boolean(),
  forced: z.boolean(),
  before: state,
  after: state,
  card: z
    .array(
      z.object({
        kind: z.enum([...queryKinds, ...hardKinds]),
        prompt: z.string(),
        picture: z.enum(['own', 'copy', 'other', 'none']),
        expected: z.string(),
        before: z.string(),
        after: z.string(),
        ok: z.boolean(),
      }),
    )
    .readonly(),
});
const stored = z.object({
  id: z.string().regex(/^edit_[0-9a-f]+$/),
  model: z.string(),
  fingerprint: z.string(),
  set: z.string(),
  editor: z.string(),
  weights: z.string().nullable(),
  prompt: z.string(),
  target: z.string(),
  note: z.string().nullable(),
  created: z.number(),
  bytes: z.number(),
  picture: z.boolean(),
  check: editCheck.nullable().default(null),
  warnings: z.array(z.string()).readonly().default([]),
});
const index = z.object({
  version: z.literal(1),
  edits: z.array(stored),
  sets: z.array(z.object({ model: z.string(), name: z.string(), history: z.array(revision) })),
});

export type StoredEdit = z.infer<typeof stored>;

export interface EditSet {
  readonly model: string;
  readonly name: string;
  readonly history: History;
}

export const setId = ({ model, name }: Pick<EditSet, 'model' | 'name'>): string => `${model}@${name}`;

const now = (): number => Math.floor(Date.now() / 1000);

export class EditStore {
  readonly #edits = new Map<string, StoredEdit>();
  readonly #sets = new Map<string, EditSet>();
  readonly #index: string;
  readonly #lock: FolderLock;

  /** @throws Error when another server uses the folder, or what the index names is not there */
  constructor(
    readonly folder: string,
    readonly limits: Pick<Limits, 'edits' | 'editsPerSet'>,
  ) {
    mkdirSync(join(folder, 'edits'), { recursive: true });
    mkdirSync(join(folder, 'pictures'), { recursive: true });
    this.#index = join(folder, 'index.json');
    this.#lock = new FolderLock(folder);
    try {
      this.#load();
      this.#sweep();
    } catch (error) {
      this.#lock.release();
      throw error;
    }
  }

  #load(): void {
    if (!existsSync(this.#index)) return;
    const read = index.safeParse(readJson(this.#index));
    if (!read.success) {
      const { path, message } = read.error.issues[0]!;
      throw new Error(`${this.#index} is not an index of edits that this visedit reads: ${path.join('.')}: ${message}`);
    }
    for (const edit of read.data.edits) {
      if (!existsSync(this.path(edit.id)))
        throw new Error(`${this.#index} names the edit ${edit.id}, but ${this.path(edit.id)} is missing; put the file back`);
      this.#edits.set(edit.id, edit);
    }
    for (const set of read.data.sets) this.#sets.set(setId(set), set);
  }

  /** Removes files that the index does not name: additions that were not finished, deletions that were. */
  #sweep(): void {
    for (const kind of ['edits', 'pictures']) {
      for (const name of readdirSync(join(this.folder, kind)))
        if (!this.#edits.has(name.replace(/\.(safetensors|png)$/, ''))) rmSync(join(this.folder, kind, name), { force: true });
    }
  }

  close(): void {
    this.#lock.release();
  }

  newId(): string {
    return `edit_${randomBytes(8).toString('hex')}`;
  }

  /** The file of an edit. */
  path(id: string): string {
    return join(this.folder, 'edits', `${id}.safetensors`);
  }

  picturePath(id: string): string {
    return join(this.folder, 'pictures', `${id}.png`);
  }

  get edits(): readonly StoredEdit[] {
    return [...this.#edits.values()];
  }

  get sets(): readonly EditSet[] {
    return [...this.#sets.values()];
  }

  /** @throws ApiError 404 */
  edit(id: string): StoredEdit {
    const edit = this.#edits.get(id);
    if (edit === undefined) throw new ApiError(404, 'edit_not_found', `there is no edit ${JSON.stringify(id)}`, { param: 'id' });
    return edit;
  }

  findSet(model: string, name: string): EditSet | undefined {
    return this.#sets.get(setId({ model, name }));
  }

  /** @throws ApiError 404 */
  set(id: string): EditSet {
    const set = this.#sets.get(id);
    if (set === undefined) throw new ApiError(404, 'set_not_found', `there is no set ${JSON.stringify(id)}`, { param: 'id' });
    return set;
  }

  isEnabled({ id, model, set }: StoredEdit): boolean {
    return entriesOf(this.findSet(model, set)?.history ?? []).some((one) => one.id === id && one.enabled);
  }

  /** Edits of a set that act, in their order. */
  active({ history }: EditSet): StoredEdit[] {
    return entriesOf(history)
      .filter(({ enabled }) => enabled)
      .map(({ id }) => this.#edits.get(id)!);
  }

  /**
   * Files of the edits that a new one would stand beside: all of its set, since those that are off may be switched on again.
   * @throws ApiError 409 when another editor made them or the set is full
   */
  beside(model: string, name: string, editor: string | undefined): { id: string; path: string }[] {
    const there = this.edits.filter((edit) => edit.model === model && edit.set === name);
    const other = there.find((edit) => editor !== undefined && edit.editor !== editor);
    if (other !== undefined)
      throw new ApiError(
        409,
        'edits_do_not_combine',
        `the set ${name} holds edits of ${other.editor}; edits of ${editor} do not combine with them: use another set`,
        { param: 'editor' },
      );
    if (there.length >= this.limits.editsPerSet)
      throw new ApiError(409, 'set_full', `the set ${name} holds ${there.length} edits, as many as a set may; use another set`, {
        param: 'set',
      });
    if (this.#edits.size >= this.limits.edits)
      throw new ApiError(409, 'store_full', `the server keeps ${this.#edits.size} edits, as many as it may; delete some`);
    return there.map(({ id }) => ({ id, path: this.path(id) }));
  }

  /** Takes an edit whose file is written. @param picture PNG */
  add(edit: Omit<StoredEdit, 'created' | 'bytes' | 'picture'>, picture: Uint8Array | undefined): StoredEdit {
    this.beside(edit.model, edit.set, edit.editor);
    if (picture !== undefined) writeFileAtomic(this.picturePath(edit.id), picture);
    const { size } = statSync(this.path(edit.id));
    const whole = { ...edit, created: now(), bytes: size, picture: picture !== undefined };
    this.#change(() => {
      this.#edits.set(edit.id, whole);
      this.#put(edit.model, edit.set, added(this.findSet(edit.model, edit.set)?.history ?? [], edit.id, now()));
    });
    return whole;
  }

  update(id: string, { enabled, note }: { enabled?: boolean | undefined; note?: string | null | undefined }): StoredEdit {
    const edit = this.edit(id);
    const set = this.findSet(edit.model, edit.set)!;
    const changed = note === undefined ? edit : { ...edit, note };
    const history = enabled === undefined ? set.history : switched(set.history, id, enabled, now());
    if (changed !== edit || history !== set.history) {
      this.#change(() => {
        this.#edits.set(id, changed);
        this.#put(set.model, set.name, history);
      });
    }
    return changed;
  }

  delete(id: string): void {
    const edit = this.edit(id);
    const { history } = this.findSet(edit.model, edit.set)!;
    this.#change(() => {
      this.#edits.delete(id);
      this.#put(edit.model, edit.set, deleted(history, id, now()));
    });
    this.#remove(id);
  }

  deleteSet(id: string): void {
    const set = this.set(id);
    const edits = this.edits.filter((edit) => edit.model === set.model && edit.set === set.name);
    this.#change(() => {
      for (const edit of edits) this.#edits.delete(edit.id);
      this.#sets.delete(id);
    });
    for (const edit of edits) this.#remove(edit.id);
  }

  /** @throws ApiError 409 when there is nothing to go back to, 404 when the revision is not known */
  revert(id: string, to?: number): EditSet {
    const set = this.set(id);
    const history = reverted(set.history, to, now());
    if (history === undefined) {
      if (to === undefined)
        throw new ApiError(409, 'nothing_to_revert', `no change of the set ${id} is left that could be undone`, { param: 'id' });
      throw new ApiError(404, 'revision_not_found', `the set ${id} has no revision ${to}, or keeps it no longer`, {
        param: 'to',
      });
    }
    this.#change(() => this.#put(set.model, set.name, history));
    return this.set(id);
  }

  picture(id: string): Uint8Array | undefined {
    return this.edit(id).picture ? readFileSync(this.picturePath(id)) : undefined;
  }

  #put(model: string, name: string, history: History): void {
    this.#sets.set(setId({ model, name }), { model, name, history });
  }

  /** Makes a change in memory and on disk, or neither. */
  #change(make: () => void): void {
    const [edits, sets] = [new Map(this.#edits), new Map(this.#sets)];
    make();
    try {
      const content = { version: 1, edits: this.edits, sets: this.sets };
      writeFileAtomic(this.#index, `${JSON.stringify(content, null, 1)}\n`);
    } catch (error) {
      restore(this.#edits, edits);
      restore(this.#sets, sets);
      throw error;
    }
  }

  #remove(id: string): void {
    rmSync(this.path(id), { force: true });
    rmSync(this.picturePath(id), { force: true });
  }
}

function restore<T>(map: Map<string, T>, to: ReadonlyMap<string, T>): void {
  map.clear();
  for (const [key, value] of to) map.set(key, value);
}
