/** What the editors' records say of themselves, as tables. */
import type { Editor } from '../../src/editors/editor.ts';
import { editorIds, editorNamed } from '../../src/editors/index.ts';
import { prose, sentence, table } from './markdown.ts';

/** What holds for every edit, in words. */
function promises({
  promises: { textUntouched, batchEqualsSingles, answersTarget, explains },
  chain,
  trained,
}: Editor): [string, string][] {
  return [
    ['learns before it edits', trained ? 'yes, by `visedit train`' : 'no'],
    ['inputs without a picture', textUntouched ? "get the unedited model's bits" : 'may change'],
    [
      'edits made in one call',
      batchEqualsSingles ? 'equal the same edits made one by one' : 'may differ from edits made one by one',
    ],
    ['several edits at once', chain === undefined ? 'do not combine' : 'combine'],
    ['attribution under an edit', explains === false ? 'is not possible' : 'looks at the edited model'],
    [
      'the target becomes the answer',
      answersTarget === false ? 'where the backbone follows words in its context' : 'yes, where the edit is learned',
    ],
  ];
}

/** The record of one editor, or of all with `all`. */
export async function editorTable(name: string): Promise<string> {
  if (name !== 'all') {
    const editor = await editorNamed(name);
    return `${sentence(prose(editor.summary))}\n\n${table(['promise', ''], promises(editor))}`;
  }
  const all = await Promise.all(editorIds.map(editorNamed));
  return table(
    ['editor', 'what it does', 'learns before', 'text-only inputs'],
    all.map(({ id, summary, trained, promises: { textUntouched } }) => [
      `[${id}](${id}.md)`,
      prose(summary),
      trained ? 'yes' : 'no',
      textUntouched ? 'same bits' : 'may change',
    ]),
  );
}
