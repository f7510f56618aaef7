/**
 * Editors from outside: a module of one's own, named by its file or its package, exports an editor. Only what a user names is loaded, never what an edit
 * file or a request names.
 */
import { existsSync, statSync } from 'node:fs';
import { createRequire, register } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { readJson } from '../files/json.ts';
import { packageRoot } from '../files/package-root.ts';
import type { Editor } from './editor.ts';
import { allEditorIds, editorNamed, registerEditor } from './index.ts';

const isPath = (name: string): boolean => /^[./]|[/\\]|\.[cm]?[jt]s$/.test(name) && !name.startsWith('@');

/** What `import` takes of a package's `exports`, or of one of their conditions. */
function target(exported: unknown): string | undefined {
  if (typeof exported === 'string') return exported;
  if (typeof exported !== 'object' || exported === null || Array.isArray(exported)) return undefined;
  for (const [condition, inside] of Object.entries(exported)) {
    if (!['.', 'node', 'import', 'module-sync', 'default'].includes(condition)) continue;
    const found = target(inside);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The file of a module, from the folder that the program runs in. */
function moduleFile(name: string): string | undefined {
  if (isPath(name)) return statSync(name, { throwIfNoEntry: false })?.isFile() ? resolve(name) : undefined;
  if (!/^(@[\w.-]+\/)?[\w.-]+$/.test(name)) return undefined;
  const folders = createRequire(resolve('visedit.js')).resolve.paths(name) ?? [];
  const folder = folders.map((one) => join(one, name)).find((one) => existsSync(join(one, 'package.json')));
  if (folder === undefined) return undefined;
  // By hand: options are read with this before the library of schemas is loaded.
  const about = readJson(join(folder, 'package.json'));
  const { exports, main } = typeof about === 'object' && about !== null && !Array.isArray(about) ? about : {};
  const file = resolve(folder, target(exports) ?? (typeof main === 'string' ? main : 'index.js'));
  return existsSync(file) ? file : undefined;
}

/** A module's name, and behind a # the id of one of its editors. */
const split = (reference: string): [string, string | undefined] => {
  const [, name, id] = /^(.*?)(?:#([^#]*))?$/s.exec(reference) as unknown as [string, string, string | undefined];
  return [name, id];
};

/** Whether a text can name an editor: its id, or a module, `./mine.js`, `their-package` or `their-package#id`. */
export const namesEditor = (reference: string): boolean =>
  allEditorIds().includes(reference) || isPath(split(reference)[0]) || moduleFile(split(reference)[0]) !== undefined;

/** `visedit` in an outside module is this copy: another one would have other classes, and a clone is not installed where the module is. */
let ownNames = (): void => {
  ownNames = () => {};
  const { exports } = readJson(join(packageRoot, 'package.json')) as { exports: Record<string, { default: string } | string> };
  const source = import.meta.url.endsWith('.ts');
  const entries = Object.entries(exports).flatMap(([name, entry]) => {
    if (typeof entry === 'string') return [];
    const path = source ? entry.default.replace('/dist/', '/').replace(/\.js$/, '.ts') : entry.default;
    return [[join('visedit', name).replaceAll('\\', '/'), pathToFileURL(join(packageRoot, path)).href]];
  });
  const hooks = `let own; export const initialize = (given) => { own = given; };
    export const resolve = (name, context, next) => next(own[name] ?? name, context);`;
  register(`data:text/javascript,${encodeURIComponent(hooks)}`, { data: Object.fromEntries(entries) });
};

const files = new Map<Editor, string>();

/** The file of the module that an outside editor was loaded from. */
export const moduleOf = (editor: Editor): string | undefined => files.get(editor);

/**
 * The editor of that name; one of a module is known by its id from then on.
 * @param reference an id, or a module that exports an editor: a file as `./mine.js`, or a package as seen from the current folder; behind it `#` and the
 * editor's id where the module has several
 * @throws Error that says what there is, or what the module lacks
 */
export async function findEditor(reference: string): Promise<Editor> {
  if (allEditorIds().includes(reference)) return editorNamed(reference);
  const [name, id] = split(reference);
  const file = moduleFile(name);
  if (file === undefined) {
    if (isPath(name)) throw new Error(`there is no module ${name} (looked from ${process.cwd()})`);
    return editorNamed(reference);
  }
  ownNames();
  let exported: Record<string, unknown>;
  try {
    exported = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (error) {
    throw new Error(`the module ${name} cannot be loaded: ${(error as Error).message}`, { cause: error });
  }
  const there = [...new Set(Object.values(exported))].filter(looksLikeEditor);
  const found = there.filter((one) => id === undefined || one.id === id);
  if (found.length !== 1)
    throw new Error(
      there.length === 0
        ? `the module ${name} exports no editor, which is an object with ${needed.join(', ')}`
        : `the module ${name} exports the editors ${there.map((one) => one.id).join(', ')}; choose one as ${name}#${there[0]!.id}`,
    );
  const editor = registerEditor(found[0]!);
  files.set(editor, file);
  return editor;
}

const needed = ['id', 'summary', 'trained', 'promises', 'edit', 'with'] as const;
const looksLikeEditor = (value: unknown): value is Editor =>
  typeof value === 'object' && value !== null && needed.every((name) => name in value);
