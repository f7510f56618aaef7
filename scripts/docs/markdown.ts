/** Pieces of Markdown that the generated pages are made of. */

/** A text as Markdown shows it: signs that Markdown would read as its own are escaped, `code` stays. */
export function prose(text: string): string {
  return text
    .split(/(`[^`]*`)/)
    .map((part, i) => (i % 2 === 1 ? part : part.replace(/[<*|]/g, '\\$&')))
    .join('');
}

/** A code span; a pipe in it would end a table's cell. */
export const code = (text: string): string => `\`${text.replaceAll('|', '\\|')}\``;

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), `|${head.map(() => '---|').join('')}`, ...rows.map(line)].join('\n');
}

export const fenced = (language: string, content: string): string => `\`\`\`${language}\n${content.trim()}\n\`\`\``;

export const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

/** The marker that stands at the top of pages that nobody writes by hand. */
export const generatedFrom = (source: string): string => `<!-- Made from ${source} by \`npm run docs\`. -->`;

/** A command line as lines of a shell block: a long one goes on after a backslash, broken before options. */
export function shellCommand(line: string, width = 100): string {
  if (line.length <= width) return line;
  const lines: string[] = [];
  for (const part of line.split(/ (?=--[a-z])/)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + part.length + 3 <= width) lines[lines.length - 1] = `${last} ${part}`;
    else lines.push(last === undefined ? part : `  ${part}`);
  }
  return lines.join(' \\\n');
}
