/** Seeds of files and messages that are lines of JSON: a ledger's changes, results of an evaluation, batches of a queue. */

const state = { text: 'a cat', probability: 0.5 };
const check = {
  ...{ took: true, exact: true, forced: true, before: state, after: state },
  card: [{ kind: 'reliability', prompt: 'p', picture: 'own', expected: 'e', before: 'b', after: 'a', ok: true }],
};
const edit = {
  ...{ id: 'edit_0a', model: 'm', fingerprint: 'f', set: 's', editor: 'ft-v', weights: null, prompt: 'p', target: 't' },
  ...{ note: null, created: 1, bytes: 9, picture: true, check, warnings: ['w'] },
  given: { rephrasings: ['r'], samePictures: 1, otherPictures: 0 },
};
const set = { model: 'm', name: 's' };
const revision = {
  revision: 1,
  at: 1,
  action: 'add',
  edit: edit.id,
  to: null,
  undo: 0,
  entries: [{ id: edit.id, enabled: true }],
};

/** The id of the edit that they name. */
export const seededEdit = edit.id;
export const ledgerSeeds: readonly (readonly object[])[] = [
  [{ do: 'add', edit, at: 1 }],
  [
    { do: 'edit', edit },
    { do: 'set', ...set, history: [revision] },
  ],
  [
    { do: 'add', edit, at: 1 },
    { do: 'note', id: edit.id, note: 'n' },
    { do: 'switch', id: edit.id, enabled: false, at: 2 },
    {
      do: 'measure',
      revision: 2,
      checks: { [edit.id]: check },
      by: edit.id,
      changed: [{ id: edit.id, lost: ['q'], gained: [] }],
    },
    { do: 'revert', ...set, to: 1, at: 3 },
  ],
  [
    { do: 'add', edit, at: 1 },
    { do: 'delete', id: edit.id, at: 2 },
  ],
  [
    { do: 'add', edit, at: 1 },
    { do: 'delete-set', ...set },
  ],
];

export const resultSeed = {
  ...{ index: 0, kind: 'k', edit: 'correction', target: 't' },
  queries: { reliability: { accuracy: 1, text: 'a', exact: true, textBefore: 'b', accuracyBefore: 0, probability: [0.1, 0.9] } },
};

export const batchSeed = {
  job: {
    ...{ model: 'mini-llava', editor: 'ft-l', data: '/a.json', images: '/i', batch: 2, maxNewTokens: 8 },
    ...{ settings: { steps: 1 }, dtype: 'float16', limit: 3, seed: 1 },
  },
  identity: { model: { name: 'm', fingerprint: 'f' }, editor: { id: 'ft-l', weights: null } },
  batch: 0,
};
