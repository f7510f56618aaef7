/** Tables of what an editor may be told, from its schemas: with what is set for a mini, and the published default for a model of a published size. */
import { recipeOf } from '../../lab/recipes.ts';
import type { Settings } from '../../src/editors/editor.ts';
import { editorNamed } from '../../src/editors/index.ts';
import { describeSettings } from '../../src/editors/settings.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { code, prose, table } from './markdown.ts';
import { families, largeOf, miniOf } from './published.ts';

const shown = (value: unknown): string =>
  value === undefined || value === null ? 'none' : code(Array.isArray(value) ? value.join(',') : String(value));

/** Settings of an editor as tables: of its training and of each edit. @throws Error that names a setting whose schema does not say what it means */
export async function settingsTable(id: string): Promise<string> {
  const { settings = {} } = await editorNamed(id);
  const [family] = families;
  const [small, large] = [miniOf(family), largeOf(family)];
  const kinds = (['train', 'edit'] as const).filter((kind) => settings[kind] !== undefined);
  const tables = kinds.map((kind) => {
    const about = (vlm: Vlm, given?: Settings) => describeSettings(id, settings[kind]!(vlm), given);
    const published = about(large);
    const rows = about(small, recipeOf(small.decoder, id)[kind]).map(({ name, option, meaning, value }, i) => [
      code(option ?? name),
      prose(meaning),
      shown(value),
      shown(published[i]!.value),
    ]);
    return table([kind === 'train' ? 'of `train`' : 'of `edit`', 'meaning', family.mini, family.large], rows);
  });
  return tables.join('\n\n');
}
