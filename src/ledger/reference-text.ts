/** Ledgers as commands name them: a folder, or `FOLDER#NAME` for one of its sets. Options are read with this alone, before anything else is loaded. */

export interface LedgerReference {
  readonly folder: string;
  /** of a set; undefined: the only one, or `default` */
  readonly name: string | undefined;
}

/** @throws Error when the name of the set is none */
export function parseReference(text: string): LedgerReference {
  const [, folder = '', name] = /^(.*?)(?:#([^#/\\]*))?$/s.exec(text) ?? [];
  if (folder.trim() === '') throw new Error('is empty; give the folder of a ledger');
  if (name !== undefined && !/^[a-z\d][\w.-]{0,62}$/i.test(name))
    throw new Error(`names no set: after # come up to 63 letters, digits, "-", "_" and "."`);
  return { folder, name };
}
