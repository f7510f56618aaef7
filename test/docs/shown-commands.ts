/** Command lines in Markdown pages: what stands in shell blocks and in code spans. */

export interface ShownLine {
  /** after `visedit` */
  readonly words: readonly string[];
  /** a line to be typed as it is; false: a pattern with placeholders */
  readonly whole: boolean;
}

const block = /^```(\w*)\n([\s\S]*?)^```$/gm;

/** Contents of fenced blocks with their language. */
export function fencedBlocks(page: string): { language: string; content: string }[] {
  return [...page.matchAll(block)].map(([, language, content]) => ({ language: language!, content: content! }));
}

/** Words of a command line, quoted ones together, without a comment at its end. */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  for (const [word] of line.matchAll(/(?:[^\s"']|"[^"]*"|'[^']*')+/g)) {
    if (word.startsWith('#')) break;
    words.push(word.replace(/"([^"]*)"|'([^']*)'/g, (_, a?: string, b?: string) => a ?? b ?? ''));
  }
  return words;
}

/** Lines of a shell block; a backslash at the end goes on. */
export const shellLines = (content: string): string[] =>
  content
    .replace(/\\\n\s*/g, ' ')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));

const isOurs = (word: string | undefined): boolean => word === 'visedit' || word === 'bin/visedit';

/** @param names of commands: a code span that starts with one of them and has options is one, too */
export function shownLines(page: string, names: readonly string[]): ShownLine[] {
  const found: ShownLine[] = [];
  for (const { content, language } of fencedBlocks(page)) {
    if (!['', 'sh'].includes(language)) continue;
    for (const line of shellLines(content)) {
      const [first, ...words] = splitWords(line);
      if (isOurs(first)) found.push({ words, whole: language === 'sh' && !/\[options\]/.test(line) });
    }
  }
  for (const [, span] of page.replace(block, '').matchAll(/`([^`]+)`/g)) {
    const [first, ...words] = splitWords(span!.replace(/\s+/g, ' ').replace(/[[\]]/g, ' '));
    if (isOurs(first) && words.length > 0) found.push({ words, whole: false });
    else if (first !== undefined && names.includes(first) && words.some((word) => word.startsWith('--')))
      found.push({ words: [first, ...words], whole: false });
  }
  return found;
}
