/** What stands in a ledger's `changes.jsonl`: edits, sets, and what was done to them, as checked values. */

import { z } from 'zod';
import { hardKinds } from '../evaluation/metrics.ts';
import { queryKinds } from '../input/records.ts';

/** Far more than an edit is given. */
const pictures = z.int('expected a whole number').min(0, 'expected 0 or more').max(10_000, 'expected at most 10000');
const entry = z.object({ id: z.string(), enabled: z.boolean() });
const revision = z.object({
  revision: z.int().positive(),
  at: z.number(),
  action: z.enum(['add', 'enable', 'disable', 'delete', 'revert']),
  edit: z.string().nullable(),
  to: z.number().nullable(),
  entries: z.array(entry).optional(),
  undo: z.number().nullable(),
});
const state = z.object({ text: z.string(), probability: z.number() });
/** Whether an edit took, as it was asked; see src/evaluation/scope-card.ts. */
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

/** What a change of the set did to an edit that was there: questions of its card that were right and no longer are, and the reverse. */
const changedEdit = z.object({ id: z.string(), lost: z.array(z.string()), gained: z.array(z.string()) });

export const storedEdit = z.object({
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
  /** the card under this edit alone */
  check: editCheck.nullable().default(null),
  warnings: z.array(z.string()).readonly().default([]),
  /** how the prompt was put; absent: as it is */
  form: z.enum(['bare', 'chat']).optional(),
  /** what its scope card asks with beside its own picture and prompt, as far as it was given: wordings, and numbers of pictures */
  given: z.object({ rephrasings: z.array(z.string()), samePictures: pictures, otherPictures: pictures }).optional(),
  /** the card under the whole set, as it was at a revision */
  measured: z.object({ revision: z.number(), check: editCheck }).optional(),
  /** earlier edits of the set that its addition changed */
  changed: z.array(changedEdit).optional(),
});

const setName = { model: z.string(), name: z.string() };
const wholeSet = z.object({ ...setName, history: z.array(revision) });
/** The index of visedit 0.1, which is taken over. */
export const formerIndex = z.object({ version: z.literal(1), edits: z.array(storedEdit), sets: z.array(wholeSet) });

/** `edit` and `set` give states; the others are changes. */
export const change = z.discriminatedUnion('do', [
  z.object({ do: z.literal('edit'), edit: storedEdit }),
  wholeSet.extend({ do: z.literal('set') }),
  z.object({ do: z.literal('add'), edit: storedEdit, at: z.number() }),
  z.object({ do: z.literal('note'), id: z.string(), note: z.string().nullable() }),
  z.object({ do: z.literal('switch'), id: z.string(), enabled: z.boolean(), at: z.number() }),
  z.object({ do: z.literal('delete'), id: z.string(), at: z.number() }),
  z.object({ do: z.literal('delete-set'), ...setName }),
  z.object({ do: z.literal('revert'), ...setName, to: z.number().optional(), at: z.number() }),
  z.object({
    do: z.literal('measure'),
    revision: z.number(),
    checks: z.record(z.string(), editCheck),
    /** the edit whose addition changed others */
    by: z.string().optional(),
    changed: z.array(changedEdit).optional(),
  }),
]);

export type Change = z.infer<typeof change>;
export type StoredEdit = z.infer<typeof storedEdit>;
export type ChangedEdit = z.infer<typeof changedEdit>;
