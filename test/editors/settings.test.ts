/** Settings of every editor: their defaults fit every model, and what does not exist or does not fit is refused with the name, the value and what fits. */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recipeOf, sizesOf } from '../../lab/recipes.ts';
import type { Settings } from '../../src/editors/editor.ts';
import { editorIds, editorNamed } from '../../src/editors/index.ts';
import { describeSettings, namedSettings, nearest, parseSettings, type SettingsSchema } from '../../src/editors/settings.ts';
import { builtInModels, loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';

let vlm: Vlm;
beforeAll(() => {
  vlm = loadModel('mini-llava', { threads: 1 });
});
afterAll(() => vlm.release());

async function schemas(): Promise<{ id: string; kind: 'train' | 'edit'; schema: SettingsSchema }[]> {
  const all = await Promise.all(editorIds.map(editorNamed));
  return all.flatMap(({ id, settings = {} }) =>
    (['train', 'edit'] as const).flatMap((kind) => (settings[kind] ? [{ id, kind, schema: settings[kind](vlm) }] : [])),
  );
}

test('defaults and recipes fit, and every setting says what it means', async () => {
  for (const { id, kind, schema } of await schemas()) {
    for (const given of [{}, recipeOf(vlm.decoder, id)[kind]]) {
      const values = parseSettings(id, schema, given) as Settings;
      expect(values).toMatchObject(given);
      // What was resolved is a choice that may be made.
      expect(parseSettings(id, schema, values)).toEqual(values);
    }
    for (const { meaning } of describeSettings(id, schema)) expect(meaning).toMatch(/\S/);
  }
  for (const model of builtInModels) expect(sizesOf(model)).toMatchObject({ hidden: 128, layers: 7 });
});

test('a name that does not exist is refused, and one that is nearly right gets the right one', async () => {
  for (const { id, schema } of await schemas()) {
    const names = Object.keys(schema.shape);
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.nat(), (name, place) => {
        const at = place % (name.length - 1 || 1);
        const swapped = name.slice(0, at) + (name[at + 1] ?? 'x') + name[at]! + name.slice(at + 2);
        if (names.includes(swapped)) return;
        expect(nearest(swapped, names)).toBeDefined();
        expect(() => parseSettings(id, schema, { [swapped]: 1 })).toThrow(`${id} has no setting ${swapped} (did you mean `);
      }),
    );
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), (name) => {
        if (!names.includes(name)) expect(() => parseSettings(id, schema, { [name]: 1 })).toThrow(`${id} has no setting`);
      }),
    );
  }
});

test('any value either fits and stays as it is, or is refused by name', async () => {
  const value = fc.oneof(
    fc.double(),
    fc.integer(),
    fc.constantFrom(1e9, -1, 0, 0.5, true, false, null, 'fast', '', Number.NaN, Number.POSITIVE_INFINITY),
    fc.array(fc.integer({ min: -2, max: 9 }), { maxLength: 3 }),
  );
  for (const { id, schema } of await schemas()) {
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(schema.shape)), value, (name, given) => {
        try {
          expect((parseSettings(id, schema, { [name]: given }) as Settings)[name]).toEqual(given);
        } catch (error) {
          expect((error as Error).message).toMatch(new RegExp(`^the setting \\w+ of ${id} must be .*, got `));
        }
      }),
    );
  }
});

test('what does not fit the model or another setting says what fits', async () => {
  const { train } = (await editorNamed('vead')).settings!;
  const told = (given: Settings): string => {
    try {
      parseSettings('vead', train!(vlm), given);
    } catch (error) {
      return (error as Error).message;
    }
    return 'fits';
  };
  expect(told({ lossDwon: false })).toContain('vead has no setting lossDwon (did you mean lossDown?)');
  expect(told({ width: 7 })).toBe('the setting width of vead must be a multiple of heads, which is 8, got 7');
  expect(told({ heads: 7 })).toBe('the setting width of vead must be a multiple of heads, which is 7, got 1024');
  expect(told({ layer: 1e9 })).toContain('must be a whole number from 0 to 5');
  expect(told({ heads: true })).toContain('the setting heads of vead must be a whole number from 1');
  expect(told({ clip: null, traced: [3, 4] })).toBe('fits');
});

test('options of `train` are settings by another name; those that an editor has not are named', async () => {
  const options = { layer: 2, steps: 7, batch: 3, microBatch: 1, rate: 0.5, settings: { width: 16 } };
  const vead = (await editorNamed('vead')).settings!.train!(vlm);
  expect(namedSettings(vead, options)).toEqual({
    settings: { width: 16, layer: 2, steps: 7, batch: 3, microBatch: 1, rate: 0.5 },
    missing: [],
  });
  const mend = (await editorNamed('mend')).settings!.train!(vlm);
  expect(namedSettings(mend, { layer: 2 }).settings).toEqual({ from: 2 });
  const ike = (await editorNamed('ike')).settings!.train!(vlm);
  expect(namedSettings(ike, options).missing).toEqual(['--steps', '--batch', '--micro-batch', '--lr']);
});
