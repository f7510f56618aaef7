/** What messages become: the rendered text, token ids, the places of the visual tokens, positions, and the grid of each picture. */
import { renderChat } from '../../src/input/chat/chat.ts';
import type { PreparedPicture } from '../../src/input/segments.ts';
import type { Case, Fixture } from './fixture.ts';
import { askedIn, messagesOf, pixelsOf, type Subject } from './subject.ts';

/** Token ids with the image token at the places of visual tokens. */
export const withImageToken = (ids: readonly number[], { meta }: Fixture): number[] =>
  ids.map((id) => (id < 0 ? (meta.image_token_id ?? id) : id));

export async function checkMessages(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  for (const [c, one] of fixture.meta.cases.entries()) {
    if (one.messages === undefined) continue;
    const where = `case ${c}`;
    const { rendered, input_ids, spans, position_ids, rope_delta } = one;
    if (rendered !== undefined) {
      const { chat } = vlm;
      if (chat === undefined) throw new Error(`${vlm.name} has no chat template`);
      const parts = renderChat(await messagesOf(subject, one), chat);
      const text = parts.map((part) => ('text' in part ? part.text : chat.placeholder)).join('');
      checks.equal('tokens.rendered', where, [text], [rendered]);
    }
    const sequence = vlm.layout(await askedIn(subject, one));
    const { ids, positions, positionDelta = 0 } = sequence;
    if (input_ids !== undefined) checks.equal('tokens.ids', where, withImageToken(ids, fixture), input_ids);
    if (spans !== undefined) {
      checks.equal('tokens.pictures', where, [sequence.spans.length], [spans.length]);
      spans.forEach((runs, i) => {
        checks.equal('tokens.spans', `${where}, picture ${i + 1}`, (sequence.spans[i] ?? []).flat(), runs.flat());
      });
    }
    position_ids?.forEach((axis, a) => {
      checks.equal('tokens.positions', `${where}, axis ${a}`, positions?.[a] ?? ids.map((_, i) => i), axis);
    });
    if (rope_delta !== undefined) checks.equal('tokens.position-delta', where, [positionDelta], [rope_delta]);
  }
}

export async function checkGrids({ fixture, processor, checks }: Subject): Promise<void> {
  for (const [c, { images, grid }] of fixture.meta.cases.entries()) {
    if (grid == null) continue;
    for (const [i, file] of images.entries()) {
      const where = `case ${c}, picture ${i + 1}`;
      const picture = processor(await fixture.picture(file), images.length);
      for (const [name, expected, actual] of gridValues(grid, i, picture))
        if (expected !== undefined) checks.equal(`grid.${name}`, where, actual, expected);
    }
  }
}

/** Numbers of picture i: by name what is expected, and what the processor says. */
function* gridValues(
  { image_grid_thw, tiles, canvas, rows, cols, packed }: NonNullable<Case['grid']>,
  i: number,
  picture: PreparedPicture,
): Generator<[name: string, expected: readonly number[] | undefined, actual: readonly number[]]> {
  const { shape } = pixelsOf(picture);
  const [, h, w] = image_grid_thw?.[i] ?? [];
  if (h !== undefined && w !== undefined) {
    // The merger makes one visual token of `merge` x `merge` patches.
    const merge = Math.sqrt((h * w) / picture.count);
    yield ['patches', [h * w], [shape[0]!]];
    yield ['merged', [h / merge, w / merge], picture.grid];
  }
  const split = canvas?.[i] ?? (rows === undefined || cols === undefined ? undefined : [cols[i]!, rows[i]!]);
  if (split != null) {
    // With the whole picture behind the tiles, unless it is alone.
    const [across, down] = split;
    const alone = across! * down! <= 1;
    yield ['tiles', [alone ? 1 : across! * down! + 1], [shape[0]!]];
  } else if (tiles?.[i] != null) yield ['tiles', [tiles[i]!], [shape[0]!]];
  const rowsAndColumns = packed?.[i];
  if (rowsAndColumns != null) yield ['packed', rowsAndColumns, picture.grid];
}
