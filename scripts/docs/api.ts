/**
 * docs/api.md and docs/api/: what src/index.ts exports, with signatures as the compiler declares them and the doc comments of the source. The compiler
 * writes declaration files; they are parsed, and exports are followed to where they are declared.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { parseAst } from 'vitest/node';
import { code, fenced, generatedFrom, prose } from './markdown.ts';

/** One exported name. */
export interface ApiEntry {
  readonly name: string;
  /** `graph`, `figures`, or none */
  readonly namespace: string | undefined;
  /** as declared, without `export declare` */
  readonly signature: string;
  /** the comment's text; empty where there is none */
  readonly comment: string;
  /** path below the repository */
  readonly source: string;
}

interface Declared {
  signature: string;
  comment: string;
  file: string;
}

/** A statement of a declaration file, as far as it is read here. */
interface Statement {
  type: string;
  start: number;
  end: number;
  declaration?: { type: string; id?: { name: string }; declarations?: { id: { name: string } }[] } | null;
  source?: { value: string } | null;
  exported?: { name: string } | null;
  specifiers?: { local: { name: string }; exported: { name: string } }[];
}

/** Declaration files of src/index.ts and of what it uses. */
function declarations(root: string, out: string): void {
  const config = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: {
      ...{ noEmit: false, declaration: true, emitDeclarationOnly: true, outDir: out, rootDir: join(root, 'src') },
      typeRoots: [join(root, 'node_modules', '@types')],
    },
    include: [],
    files: [join(root, 'src', 'index.ts')],
  };
  const path = join(out, 'tsconfig.json');
  writeFileSync(path, JSON.stringify(config));
  execFileSync(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', path], { stdio: 'pipe' });
}

class Reader {
  readonly #known = new Map<string, { text: string; body: Statement[] }>();

  /** @param sourceOf path of the source of a declaration file */
  constructor(readonly sourceOf: (file: string) => string) {}

  read(file: string): { text: string; body: Statement[] } {
    let found = this.#known.get(file);
    if (found === undefined) {
      const text = readFileSync(file, 'utf8');
      found = { text, body: parseAst(text, { lang: 'dts' }, file).body as unknown as Statement[] };
      this.#known.set(file, found);
    }
    return found;
  }

  /** Names that a file exports, in its order, each with its declaration. */
  exportsOf(file: string): Map<string, Declared> {
    const out = new Map<string, Declared>();
    const { text, body } = this.read(file);
    body.forEach((statement, i) => {
      const { declaration, source, specifiers = [] } = statement;
      const from = source == null ? undefined : join(dirname(file), source.value.replace(/\.ts$/, '.d.ts'));
      if (from !== undefined && !statement.type.startsWith('Export')) return;
      if (from !== undefined && statement.type === 'ExportAllDeclaration' && statement.exported == null) {
        for (const [name, declared] of this.exportsOf(from)) out.set(name, declared);
      } else if (from !== undefined && statement.type === 'ExportNamedDeclaration') {
        const there = this.exportsOf(from);
        for (const { local, exported } of specifiers) {
          const declared = there.get(local.name);
          if (declared === undefined)
            throw new Error(`${file} exports ${local.name} from ${source!.value}, which does not have it`);
          out.set(exported.name, declared);
        }
      } else if (declaration != null) {
        const names =
          declaration.id === undefined ? (declaration.declarations ?? []).map(({ id }) => id.name) : [declaration.id.name];
        const signature = text
          .slice(statement.start, statement.end)
          .replace(/^export (declare )?/, '')
          .replace(/^ {4}#private;\n/m, '');
        for (const name of names) {
          // Overloads and a type of the same name stand together.
          const before = out.get(name);
          const comment = before?.comment || commentBefore(text, body, i, readFileSync(this.sourceOf(file), 'utf8'));
          out.set(name, { signature: before === undefined ? signature : `${before.signature}\n${signature}`, comment, file });
        }
      }
    });
    return out;
  }

  /** Namespaces that a file exports, by name. */
  namespacesOf(file: string): Map<string, string> {
    return new Map(
      this.read(file)
        .body.filter(({ type, exported }) => type === 'ExportAllDeclaration' && exported != null)
        .map(({ exported, source }) => [exported!.name, join(dirname(file), source!.value.replace(/\.ts$/, '.d.ts'))]),
    );
  }
}

/** The doc comment right before a statement. The first comment of a source file is about the file. */
function commentBefore(text: string, body: readonly Statement[], i: number, source: string): string {
  const gap = text.slice(body[i - 1]?.end ?? 0, body[i]!.start);
  const comments = gap.match(/\/\*\*[\s\S]*?\*\//g) ?? [];
  if (i === 0 && comments[0] !== undefined && source.startsWith(comments[0])) comments.shift();
  return (comments.at(-1) ?? '')
    .replace(/^\/\*\*|\*\/$/g, '')
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, '').trimEnd())
    .join('\n')
    .trim();
}

/** Everything that src/index.ts exports. */
export function apiEntries(root: string): ApiEntry[] {
  const out = mkdtempSync(join(tmpdir(), 'visedit-api-'));
  try {
    declarations(root, out);
    const pathOf = (file: string): string =>
      `src/${relative(out, file)
        .replaceAll('\\', '/')
        .replace(/\.d\.ts$/, '.ts')}`;
    const reader = new Reader((file) => join(root, pathOf(file)));
    const index = join(out, 'index.d.ts');
    const entries = (file: string, namespace: string | undefined): ApiEntry[] =>
      [...reader.exportsOf(file)].map(([name, { file: declaredIn, ...rest }]) => ({
        ...{ name, namespace, ...rest },
        source: pathOf(declaredIn),
      }));
    const namespaces = [...reader.namespacesOf(index)];
    return [...entries(index, undefined), ...namespaces.flatMap(([name, file]) => entries(file, name))];
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

/** A comment as Markdown: tags as a list, indented lines (formulas) as they stand. */
function commentText(comment: string): string {
  const [text, ...tags] = comment.split(/^@|(?<=\s)@(?=(?:param|returns|throws) )/m);
  const blocks: string[] = [];
  let formula: string[] = [];
  let plain: string[] = [];
  const flush = (): void => {
    if (plain.length > 0) blocks.push(prose(plain.join('\n')));
    if (formula.length > 0) blocks.push(fenced('', formula.map((line) => line.slice(2)).join('\n')));
    [formula, plain] = [[], []];
  };
  for (const line of text!.trim().split('\n')) {
    const indented = line.startsWith('  ');
    if ((indented && plain.length > 0) || (!indented && formula.length > 0)) flush();
    (indented ? formula : plain).push(line);
  }
  flush();
  const list = tags.map((tag) => {
    const [, kind, rest] = /^(\w+)\s+([\s\S]*)$/.exec(tag.trim().replace(/\s*\n\s*/g, ' ')) ?? ['', 'note', tag.trim()];
    if (kind !== 'param') return `- ${kind}: ${prose(rest!)}`;
    const [name, ...words] = rest!.split(' ');
    return `- ${code(name!)}: ${prose(words.join(' '))}`;
  });
  return [...blocks.filter(Boolean), ...(list.length > 0 ? [list.join('\n')] : [])].join('\n\n');
}

function entryText({ name, signature, comment, source }: ApiEntry, up: string): string {
  return [`### ${name}`, commentText(comment), fenced('ts', signature), `[${source}](${up}${source})`]
    .filter(Boolean)
    .join('\n\n');
}

function page(title: string, about: string, entries: readonly ApiEntry[], up: string): string {
  const groups = new Map<string, ApiEntry[]>();
  for (const entry of entries) {
    const room = entry.source.replace(/^src\/|\.ts$/g, '').replace(/\/[^/]*$/, '');
    groups.set(room, [...(groups.get(room) ?? []), entry]);
  }
  const rooms = [...groups].map(([room, own]) => [`## ${room}`, ...own.map((entry) => entryText(entry, up))].join('\n\n'));
  return `${[generatedFrom('the exports of src/index.ts'), `# ${title}`, about, ...rooms].join('\n\n')}\n`;
}

/** Pages by their path in docs/. */
export function apiPages(entries: readonly ApiEntry[]): Map<string, string> {
  const names = [...new Set(entries.flatMap(({ namespace }) => namespace ?? []))];
  const links = names.map((name) => `[${name}](api/${name}.md)`).join(' and ');
  return new Map([
    [
      'api.md',
      page(
        'The library',
        `What \`import … from 'visedit'\` gives. The names ${links} hold more. Shapes are written \`[b, l, d]\`: b batch, t text, v visual, l sequence, d hidden, h heads, k per head, m adapter width, n vocabulary.`,
        entries.filter(({ namespace }) => namespace === undefined),
        '../',
      ),
    ],
    ...names.map((name): [string, string] => [
      `api/${name}.md`,
      page(
        `The library: ${name}`,
        `What \`${name}\` of \`import { ${name} } from 'visedit'\` holds. All other names: [the library](../api.md).`,
        entries.filter(({ namespace }) => namespace === name),
        '../../',
      ),
    ]),
  ]);
}

/** The body of an exported function in its source, where it has one: for checks of what its comment must say. */
export function sourceOf(root: string, { name, source }: ApiEntry): string {
  const path = join(root, source);
  if (!existsSync(path)) return '';
  const text = readFileSync(path, 'utf8');
  const body = parseAst(text, { lang: 'ts' }, path).body as unknown as Statement[];
  const found = body.find(
    ({ declaration }) => declaration?.id?.name === name || declaration?.declarations?.some(({ id }) => id.name === name),
  );
  return found === undefined ? '' : text.slice(found.start, found.end);
}
