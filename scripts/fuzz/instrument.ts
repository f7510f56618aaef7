/**
 * Loader hooks that count which code an input reaches: a counter at the start of every function, branch, case and loop of the readers and of the
 * libraries that read for them. V8's own counters say the same, but reading them takes as long as thousands of inputs, and a native fuzzer needs a
 * binary that is downloaded. Also gathers the words that the code knows: an input that holds them gets further.
 */
import { readFileSync } from 'node:fs';
import type { LoadHook } from 'node:module';
import { parseAst } from 'vite';

const watched = /\/(src|apps)\/.*\.ts$|node_modules\/(yaml|@huggingface)\//;

interface Node {
  type: string;
  start: number;
  end: number;
  [field: string]: unknown;
}

/** Counters are numbered over all modules of a thread. */
let counters = 0;
export function numberFrom(first: number): void {
  counters = first;
}

export const isWatched = (path: string): boolean => watched.test(path);

export const load: LoadHook = async (url, context, next) => {
  const loaded = await next(url, context);
  const { format } = loaded;
  if (!watched.test(url) || (format !== 'module' && format !== 'commonjs')) return loaded;
  // Node reads CommonJS itself where a hook gives no source.
  const source = loaded.source ?? readFileSync(new URL(url));
  return { ...loaded, source: instrumented(Buffer.from(source as Uint8Array).toString('utf8'), format) };
};

/** The same program with counters, on the same lines. */
export function instrumented(source: string, format: 'module' | 'commonjs' = 'module'): string {
  const program = parseAst(source, { lang: 'js', sourceType: format }) as unknown as Node;
  const pieces: { at: number; text: string }[] = [];
  const words = new Set<string>();
  const count = (): string => `(__count[${counters}]++||__reached.push(${counters++}))`;
  const statement = (at: number): unknown => pieces.push({ at, text: `${count()};` });

  const childrenOf = (node: Node): Node[] =>
    Object.values(node)
      .flat()
      .filter((child): child is Node => typeof child === 'object' && child !== null && 'type' in child);

  /** Puts a counter before a node, which is an expression, a statement or a block. */
  function counted(node: Node | null | undefined, kind: 'expression' | 'statement'): void {
    if (node === null || node === undefined) return;
    if (node.type === 'BlockStatement') {
      statement(node.start + 1);
      for (const child of childrenOf(node)) walk(child);
      return;
    }
    const [open, separator, close] = kind === 'expression' ? ['(', ',', ')'] : ['{', ';', '}'];
    pieces.push({ at: node.start, text: `${open}${count()}${separator}` });
    walk(node);
    pieces.push({ at: node.end, text: close });
  }

  function walk(node: Node): void {
    if (node.type === 'Literal' && typeof node.value === 'string') words.add(node.value);
    if (node.type === 'Property') words.add(String((node.key as Node).name ?? ''));
    const parts = Object.hasOwn(branches, node.type) ? branches[node.type]! : {};
    for (const [field, value] of Object.entries(node)) {
      const kind = parts[field];
      if (node.type === 'SwitchCase' && field === 'consequent') {
        const [first] = value as Node[];
        if (first !== undefined) statement(first.start);
      }
      if (kind !== undefined) counted(value as Node | null, kind);
      else
        for (const child of [value].flat())
          if (typeof child === 'object' && child !== null && 'type' in child) walk(child as Node);
    }
  }

  walk(program);
  // After the directives, which must come first.
  const body = program.body as Node[];
  const first = body.findIndex((node) => node.directive === undefined);
  const known = [...words].filter((word) => /^[^\s\0]{2,40}$/.test(word));
  const prologue = `;const {count:__count,reached:__reached,words:__words}=globalThis[Symbol.for('visedit.fuzz')];__words.push(...${JSON.stringify(known)});`;
  pieces.unshift({ at: first < 0 ? source.length : body[first]!.start, text: prologue });
  let out = '';
  let from = 0;
  for (const { at, text } of pieces.sort((a, b) => a.at - b.at)) {
    out += source.slice(from, at) + text;
    from = at;
  }
  return out + source.slice(from);
}

/** Where programs branch. */
const branches: Readonly<Record<string, Readonly<Record<string, 'expression' | 'statement'>>>> = {
  FunctionDeclaration: { body: 'statement' },
  FunctionExpression: { body: 'statement' },
  ArrowFunctionExpression: { body: 'expression' },
  IfStatement: { consequent: 'statement', alternate: 'statement' },
  ForStatement: { body: 'statement' },
  ForInStatement: { body: 'statement' },
  ForOfStatement: { body: 'statement' },
  WhileStatement: { body: 'statement' },
  DoWhileStatement: { body: 'statement' },
  CatchClause: { body: 'statement' },
  ConditionalExpression: { consequent: 'expression', alternate: 'expression' },
  LogicalExpression: { right: 'expression' },
  AssignmentPattern: { right: 'expression' },
};
