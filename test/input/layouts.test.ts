/** Token layouts, grids and positions of modern families, against what transformers makes of the same conversations and pictures. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { type Message, type Part, renderChat } from '../../src/input/chat/chat.ts';
import { readChatTemplate } from '../../src/input/chat/template.ts';
import { gridPositions } from '../../src/input/grid-positions.ts';
import { anyRes, bestResolution, type Size, smartSize, smolTiles, tiledCanvas } from '../../src/input/image/grids.ts';
import { encodeWithPictures, gemmaPicture, oneRun, type PictureText, tiledPicture } from '../../src/input/picture-text.ts';
import { loadTokenizer } from '../../src/input/text/tokenizer.ts';
import { sharedDir } from '../shared.ts';

const modern = join(sharedDir, 'fixtures-modern');
type Grid = Record<string, number[] | number[][] | null[]>;
interface Case {
  messages: { role: string; content: ({ type: 'text'; text: string } | { type: 'image'; image: string })[] }[];
  images: string[];
  rendered: string;
  input_ids: number[];
  spans: [number, number][][];
  position_ids: number[][];
  rope_delta: number;
  grid?: Grid;
}
interface Meta {
  cases: Case[];
  image_token: string;
  image_token_id: number;
  layouts: string[];
  sizes: Record<string, number>;
}

/** A picture's text by its place among a conversation's pictures and their sizes; the grid that the reference tells of them all. */
interface Family {
  name: string;
  placeholder?: string;
  begin?: string;
  text(size: Size, pictures: number, sizes: Meta['sizes'], image: string): PictureText;
  grid(sizes: readonly Size[], given: Meta['sizes']): Grid;
}

const patches = (size: Size, s: Meta['sizes']): Size => {
  const factor = s.patch! * s.merge!;
  const [height, width] = smartSize(size, factor, s.min_pixels!, s.max_pixels!);
  return [height / s.patch!, width / s.patch!];
};
const qwen = (name: string): Family => ({
  name,
  text: (size, _, s, image) => {
    const [rows, columns] = patches(size, s);
    return oneRun(image, (rows * columns) / s.merge! ** 2);
  },
  grid: (sizes, s) => ({ image_grid_thw: sizes.map((size) => [1, ...patches(size, s)]) }),
});
const oneVision = (size: Size, s: Meta['sizes']) =>
  anyRes(size, { resolutions: s.image_grid_pinpoints as never, tile: s.tile!, side: Math.sqrt(s.tokens_per_tile!), most: 4 });
const families: Family[] = [
  qwen('tiny-qwen2_5_vl'),
  qwen('tiny-qwen3_vl'),
  {
    name: 'tiny-smolvlm',
    begin: '<|im_start|>',
    text: (size, _, s, image) =>
      tiledPicture(
        { around: '<fake_token_around_image>', image, whole: '<global-img>' },
        smolTiles(size, s.longest_edge!, s.tile!).tiles,
        s.image_seq_len!,
      ),
    grid: (sizes, s) => {
      const tiles = sizes.map((size) => smolTiles(size, s.longest_edge!, s.tile!).tiles);
      return {
        rows: tiles.map(([rows]) => rows),
        cols: tiles.map(([, columns]) => columns),
        tiles: tiles.map(([rows, columns]) => rows * columns + 1),
      };
    },
  },
  {
    name: 'tiny-llava_onevision',
    text: (size, pictures, s, image) => oneRun(image, pictures === 1 ? oneVision(size, s).count : s.tokens_per_tile! + 1),
    grid: (sizes, s) => {
      const cut = sizes.map((size) => (sizes.length === 1 ? oneVision(size, s) : null));
      return {
        image_sizes: sizes.map((size) => [...size]),
        batch_num_images: [sizes.length],
        best_resolution: cut.map((one) => one && [...one.resolution]) as never,
        tiles: cut.map((one) => (one ? one.tiles[0] * one.tiles[1] + 1 : 1)),
        unpadded: cut.map((one) => one && [...one.unpadded]) as never,
        packed: cut.map((one) => one && [...one.packed]) as never,
      };
    },
  },
  {
    name: 'tiny-gemma3',
    placeholder: '<start_of_image>',
    begin: '<bos>',
    text: (_, __, s, image) => gemmaPicture({ begin: '<start_of_image>', image, end: '<end_of_image>' }, s.mm_tokens_per_image!),
    grid: (sizes) => ({ num_crops: sizes.map(() => 0) }),
  },
  {
    name: 'tiny-internvl',
    text: (size, _, s, image) => {
      const [rows, columns] = tiledCanvas(size, s.tile!, s.min_patches!, s.max_patches!);
      return oneRun(image, (rows * columns + Number(rows * columns > 1)) * s.image_seq_length!, '<img>', '</img>');
    },
    grid: (sizes, s) => {
      const canvases = sizes.map((size) => tiledCanvas(size, s.tile!, s.min_patches!, s.max_patches!));
      return {
        canvas: canvases.map(([rows, columns]) => [columns, rows]),
        tiles: canvases.map(([rows, columns]) => rows * columns + Number(rows * columns > 1)),
      };
    },
  },
];

const metaOf = (name: string) => JSON.parse(readFileSync(join(modern, 'expected', name, 'meta.json'), 'utf8')) as Meta;
async function sizeOf(file: string): Promise<Size> {
  const { width, height } = await sharp(join(modern, 'images', file)).metadata();
  return [height, width];
}

describe.skipIf(!existsSync(modern))('the reference', () => {
  describe.each(families)('$name', (family) => {
    const meta = existsSync(modern) ? metaOf(family.name) : undefined;
    test.each(meta?.layouts ?? [])('conversations become the same tokens, spans and positions: %s', async (folder) => {
      const template = readChatTemplate(join(modern, folder))!;
      const tokenizer = loadTokenizer(join(modern, folder));
      for (const c of meta!.cases) {
        const messages = c.messages.map(
          ({ role, content }): Message<string> => ({
            role,
            content: content.map((part) => (part.type === 'text' ? { text: part.text } : { picture: part.image })),
          }),
        );
        const placeholder = family.placeholder ?? meta!.image_token;
        const parts = renderChat(messages, { template, placeholder });
        expect(parts.map((part) => ('text' in part ? part.text : placeholder)).join('')).toBe(c.rendered);
        const sizes = await Promise.all(c.images.map(sizeOf));
        let next = 0;
        const texts = parts.map((part): Part<PictureText> => {
          if ('text' in part) return part;
          return { picture: family.text(sizes[next++]!, sizes.length, meta!.sizes, meta!.image_token) };
        });
        const image = { text: meta!.image_token, id: meta!.image_token_id };
        const tokens = encodeWithPictures(texts, image, (text, o) => tokenizer.encode(text, o), family.begin);
        const ids: number[] = [];
        const spans: [number, number][][] = sizes.map(() => []);
        for (const token of tokens) {
          if (typeof token === 'number') ids.push(token);
          else {
            spans[token.picture]!.push([ids.length, ids.length + token.run]);
            for (let i = 0; i < token.run; i++) ids.push(meta!.image_token_id);
          }
        }
        expect(ids).toEqual(c.input_ids);
        expect(spans).toEqual(c.spans);
        if (c.position_ids.length !== 3) continue;
        const thw = (c.grid?.image_grid_thw ?? []) as number[][];
        const grids = spans.map(([run], i) => ({
          start: run![0],
          grid: [thw[i]![1]! / meta!.sizes.merge!, thw[i]![2]! / meta!.sizes.merge!] as const,
        }));
        expect(gridPositions(ids.length, grids)).toEqual({ positions: c.position_ids, positionDelta: c.rope_delta });
      }
    });

    test('pictures get the same grids', async () => {
      for (const c of meta!.cases.filter(({ images }) => images.length > 0)) {
        const sizes = await Promise.all(c.images.map(sizeOf));
        const { window_index: _, cu_window_seqlens: __, ...expected } = c.grid!;
        expect(family.grid(sizes, meta!.sizes)).toEqual(expected);
      }
    });
  });
});

describe('positions on three axes', () => {
  test('text alone counts on', () => {
    expect(gridPositions(3, [])).toEqual({
      positions: [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2],
      ],
      positionDelta: 0,
    });
  });

  test('every visual token has its own place; text behind is ahead of all of them', () => {
    const side = fc.integer({ min: 1, max: 6 });
    const pieces = fc.array(fc.oneof(fc.record({ words: side }), fc.record({ grid: fc.tuple(side, side) })), { maxLength: 6 });
    fc.assert(
      fc.property(pieces, (given) => {
        let length = 0;
        const pictures: { start: number; grid: [number, number] }[] = [];
        for (const piece of given) {
          if ('words' in piece) length += piece.words;
          else {
            pictures.push({ start: length, grid: piece.grid });
            length += piece.grid[0] * piece.grid[1];
          }
        }
        const { positions, positionDelta } = gridPositions(length, pictures);
        expect(positions.map((axis) => axis.length)).toEqual([length, length, length]);
        const places = positions[0]!.map((t, i) => `${t} ${positions[1]![i]} ${positions[2]![i]}`);
        expect(new Set(places).size).toBe(length);
        const largest = Math.max(-1, ...positions.flat());
        expect(length + positionDelta).toBe(largest + 1);
      }),
    );
  });

  test('grids that do not fit are named', () => {
    expect(() => gridPositions(5, [{ start: 2, grid: [2, 2] }])).toThrow("the pictures' grids reach to token 6 of an input of 5");
  });
});

describe('grids', () => {
  const side = fc.integer({ min: 1, max: 5000 });
  test('smart resize keeps to its limits', () => {
    fc.assert(
      fc.property(side, side, (height, width) => {
        fc.pre(Math.max(height, width) <= 200 * Math.min(height, width));
        const [h, w] = smartSize([height, width], 28, 3136, 1_003_520);
        expect([h % 28, w % 28]).toEqual([0, 0]);
        expect(h * w).toBeGreaterThanOrEqual(3136);
        // A side is never below the factor, which may go above the limit in very long pictures.
        if (h > 28 && w > 28) expect(h * w).toBeLessThanOrEqual(1_003_520);
      }),
    );
    expect(() => smartSize([1, 10_000], 28, 3136, 1e6)).toThrow('10000 by 1 pixels; at most 200 to 1');
    // Python rounds halves to the even number: 40 / 16 = 2.5 -> 2
    expect(smartSize([40, 40], 16, 1, 1e6)).toEqual([32, 32]);
  });

  test('an unpadded grid is never larger than its tiles', () => {
    const resolutions: Size[] = [1, 2, 3].flatMap((r) => [1, 2, 3].map((c): Size => [r * 384, c * 384]));
    fc.assert(
      fc.property(side, side, (height, width) => {
        const { tiles, unpadded, packed, count } = anyRes([height, width], { resolutions, tile: 384, side: 27, most: 9 });
        expect(unpadded[0]).toBeLessThanOrEqual(tiles[0] * 27);
        expect(unpadded[1]).toBeLessThanOrEqual(tiles[1] * 27);
        expect(count).toBe(27 ** 2 + packed[0] * (packed[1] + 1));
      }),
    );
    // 50 // 1.1111111111111112 is 44 in Python, and 50 / 1.1111111111111112 is 45
    expect(anyRes([3901, 1187], { resolutions: [[2304, 768]], tile: 384, side: 27, most: 9 }).packed).toEqual([145, 44]);
    expect(() => bestResolution([10, 10], [])).toThrow('no resolution fits');
  });

  test('a picture within one tile is not cut', () => {
    expect(smolTiles([512, 512], 512, 512).tiles).toEqual([0, 0]);
    expect(smolTiles([100, 100], 2048, 512).tiles).toEqual([4, 4]);
    expect(tiledCanvas([448, 448], 448, 1, 12)).toEqual([1, 1]);
  });
});

describe('pictures in texts', () => {
  const encode = (text: string): number[] => [...text].map((character) => character.codePointAt(0)!);
  const image = { text: '#', id: 35 };

  test('runs stand where the image tokens stand', () => {
    const tokens = encodeWithPictures(
      [{ text: 'a' }, { picture: { text: '<##>', runs: [2, 3] } }, { picture: oneRun('#', 1) }],
      image,
      encode,
    );
    expect(tokens).toEqual([97, 60, { picture: 0, run: 2 }, { picture: 0, run: 3 }, 62, { picture: 1, run: 1 }]);
  });

  test('an image token in a text is refused, and one that the tokenizer does not know is named', () => {
    expect(() => encodeWithPictures([{ text: 'a#' }], image, encode)).toThrow('the prompt has # in its text');
    expect(() => encodeWithPictures([{ picture: oneRun('#', 1) }], { text: '#', id: 7 }, encode)).toThrow(
      'does not make token 7 of #',
    );
  });
});
