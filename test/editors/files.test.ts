/**
 * Files of edits and weights: weights stand once beside all edits of a folder or in a bundle, edits read one after the other share them, old files
 * open, and what does not fit is refused with the file, the name, the value and what fits.
 */
import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ContractWorld } from '../../lab/contract.ts';
import { recipeOf } from '../../lab/recipes.ts';
import { type Edit, type Editor, type EditorWeights, fingerprintOf, type Settings } from '../../src/editors/editor.ts';
import { readEdit, readEditorWeights, writeEdit, writeEditorWeights } from '../../src/editors/files.ts';
import { editorIds, editorNamed } from '../../src/editors/index.ts';
import { weightsFor } from '../../src/editors/shipped.ts';
import { openSafetensors, writeSafetensors } from '../../src/files/safetensors.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import type { AnsweringModel } from '../../src/models/answer.ts';
import { openTinyContract } from './tiny-contract.ts';

let world: ContractWorld;
let close: () => Promise<void>;
const made = new Map<string, { editor: Editor; weights: EditorWeights | undefined; edits: Edit[] }>();
const at = (...parts: string[]): string => join(world.root, ...parts);

const trained = async (id: string, seed: number): Promise<EditorWeights | undefined> => {
  const { vlm, records } = world;
  const editor = await editorNamed(id);
  const options = {
    out: at(`${id}-${seed}`),
    seed,
    steps: 1,
    batch: 2,
    threads: 1,
    settings: { ...recipeOf(vlm.decoder, id).train },
  };
  return editor.train?.(vlm, records, options);
};

beforeAll(async () => {
  ({ world, close } = await openTinyContract());
  for (const id of editorIds) {
    const editor = await editorNamed(id);
    const weights = await trained(id, 1);
    const edits = await editor.edit(world.vlm, world.requests, weights, {
      ...recipeOf(world.vlm.decoder, id).edit,
      ...(id === 'tp' && { steps: 2 }),
    });
    made.set(id, { editor, weights, edits });
  }
}, 240_000);
afterAll(() => close());

const logProbs = async (model: AnsweringModel): Promise<number[][]> =>
  (await model.answerTargets(world.queries)).map((answer) => [...answer.logProbs]);

describe.each(['vead', 'serac', 'lte'])('%s, whose edits act through weights', (id) => {
  test('they stand once beside the edits; edits read from files share them and answer as before', async () => {
    const { editor, weights, edits } = made.get(id)!;
    const folder = at('beside', id);
    mkdirSync(folder, { recursive: true });
    const paths = edits.map((_, i) => join(folder, `${i}.safetensors`));
    edits.forEach((edit, i) => {
      writeEdit(paths[i]!, edit);
    });
    const beside = `${id}-${fingerprintOf(weights!).slice(0, 16)}.safetensors`;
    expect(readdirSync(folder).sort()).toEqual(['0.safetensors', '1.safetensors', beside].sort());
    const read = paths.map(readEdit);
    expect(read).toEqual(edits);
    expect(read[1]!.weights).toBe(read[0]!.weights);
    expect(read[0]!.weights).toBe(edits[0]!.weights);
    expect(await logProbs(editor.chain!(world.vlm, read))).toEqual(await logProbs(editor.chain!(world.vlm, edits)));
    // What stands beside the edits is a file of weights like any other.
    expect(weightsFor(world.vlm, editor, join(folder, beside))).toEqual(weights);
  });

  test('a bundle stands alone; an edit whose weights are missing, or are others, is refused', async () => {
    const { editor, edits, weights } = made.get(id)!;
    const [folder, elsewhere] = [at('apart', id), at('apart', id, 'elsewhere')];
    mkdirSync(elsewhere, { recursive: true });
    writeEdit(join(elsewhere, 'bundle.safetensors'), edits[0]!, { bundle: true });
    expect(readdirSync(elsewhere)).toEqual(['bundle.safetensors']);
    const bundle = readEdit(join(elsewhere, 'bundle.safetensors'));
    expect(bundle).toEqual(edits[0]);
    expect(await logProbs(editor.with(world.vlm, [bundle]))).toEqual(await logProbs(editor.with(world.vlm, [edits[0]!])));
    writeEdit(join(folder, 'one.safetensors'), edits[0]!);
    const lonely = join(elsewhere, 'one.safetensors');
    copyFileSync(join(folder, 'one.safetensors'), lonely);
    expect(() => readEdit(lonely)).toThrow(/one\.safetensors acts through weights of .*, and .* is missing; put that file there/);
    const name = `${id}-${fingerprintOf(weights!).slice(0, 16)}.safetensors`;
    writeEditorWeights(join(elsewhere, name), { ...weights!, settings: { ...weights!.settings, seed: 'other' } });
    const fresh = () => readEditorWeights(join(elsewhere, name));
    expect(fingerprintOf(fresh())).not.toBe(fingerprintOf(weights!));
  });

  test('edits that were made with other weights do not combine', async () => {
    const { editor, edits } = made.get(id)!;
    const other = await trained(id, 2);
    const [edit] = await editor.edit(world.vlm, world.requests.slice(0, 1), other);
    for (const under of [editor.with, editor.chain!])
      expect(() => under(world.vlm, [edits[0]!, edit!])).toThrow(`made with different weights of ${id} do not combine`);
  });

  test('an edit of an earlier version, which carried its weights, opens; it combines with those of today where it says how its weights were made', async () => {
    const { editor, edits } = made.get(id)!;
    const { weights, ...edit } = edits[0]!;
    const prefix = id === 'vead' ? 'weight.' : '';
    const path = at(`${id}-earlier.safetensors`);
    // LTE wrote down what answering takes.
    const { retrievalLayer, rank } = weights!.settings;
    const settings = {
      ...(id === 'lte' ? { retrievalLayer: retrievalLayer!, rank: rank! } : weights!.settings),
      ...edit.settings,
    };
    writeSafetensors(path, new Map([...edit.tensors, ...[...weights!.tensors].map(([name, t]) => [prefix + name, t] as const)]), {
      format: 'visedit edit',
      version: '1',
      editor: id,
      model: JSON.stringify(edit.model),
      settings: JSON.stringify(settings),
      request: JSON.stringify(edit.request),
    });
    const read = readEdit(path);
    expect(await logProbs(editor.with(world.vlm, [read]))).toEqual(await logProbs(editor.with(world.vlm, [edits[0]!])));
    if (id === 'lte') return;
    expect(read).toEqual(edits[0]);
    expect(fingerprintOf(read.weights!)).toBe(fingerprintOf(weights!));
    expect(await logProbs(editor.chain!(world.vlm, [read, edits[1]!]))).toEqual(await logProbs(editor.chain!(world.vlm, edits)));
  });
});

test('demonstrations of different indexes are not compared', async () => {
  const { editor, edits } = made.get('ike')!;
  const { vlm, requests, records } = world;
  const options = { out: at('ike-few'), seed: 5, settings: { k: 1, context: 200, pool: 3 } };
  const [edit] = await editor.edit(vlm, requests.slice(0, 1), await editor.train!(vlm, records, options));
  expect(() => editor.chain!(vlm, [edits[0]!, edit!])).toThrow('made with different weights do not combine');
});

/** Writes a file again with some of its metadata and tensors changed. */
function changed(
  path: string,
  {
    settings,
    tensors,
    editor,
  }: { settings?: (given: Settings) => Settings; tensors?: (given: Map<string, Tensor>) => void; editor?: string },
): void {
  const file = openSafetensors(path);
  const all = new Map<string, Tensor>(file.names().map((name) => [name, file.readTensor(name)]));
  tensors?.(all);
  const { settings: given, ...metadata } = file.metadata;
  const values = JSON.parse(given!) as Settings;
  writeSafetensors(path, all, { ...metadata, ...(editor && { editor }), settings: JSON.stringify(settings?.(values) ?? values) });
}

/** Reads the file and uses it; what is refused is told. */
async function told(id: string, kind: 'edit' | 'weights', path: string): Promise<string | undefined> {
  const { editor } = made.get(id)!;
  try {
    if (kind === 'weights') weightsFor(world.vlm, editor, path);
    else editor.with(world.vlm, [readEdit(path)]);
    return undefined;
  } catch (error) {
    expect(error, String((error as Error).stack)).not.toBeInstanceOf(TypeError);
    expect(error).not.toBeInstanceOf(RangeError);
    return (error as Error).message;
  }
}

function written(id: string, kind: 'edit' | 'weights', name: string): string | undefined {
  const { weights, edits } = made.get(id)!;
  const path = at(name);
  rmSync(path, { force: true });
  if (kind === 'edit') writeEdit(path, edits[0]!, { bundle: true });
  else if (weights === undefined) return undefined;
  else writeEditorWeights(path, weights);
  return path;
}

test('settings of files that do not exist in the model are refused in words', async () => {
  const cases: [id: string, kind: 'edit' | 'weights', name: string, value: Settings[string] | undefined, says: string][] = [
    ['vead', 'weights', 'layer', 1e9, 'the setting layer must be a whole number from 0 to 2'],
    ['vead', 'weights', 'layer', undefined, 'the setting layer must be a whole number from 0 to 2'],
    ['vead', 'weights', 'heads', 7, "the setting heads must divide the adapter's width 256, got 7"],
    ['vead', 'weights', 'heads', true, 'the setting heads must be a whole number from 1'],
    ['vead', 'edit', 'promptEnd', 0.5, 'the setting promptEnd must be a whole number from 0'],
    [
      'vead',
      'edit',
      'promptEnd',
      1e6,
      'the setting promptEnd must be a whole number from 0 to 23, the last position of the signal, got',
    ],
    ['tp', 'edit', 'layer', undefined, 'the setting layer must be a whole number from 3 to 3'],
    ['ke', 'edit', 'from', 1e9, 'the setting from must be a whole number from 0 to 3'],
    ['mend', 'weights', 'rank', 1e9, 'the setting rank must be a whole number from 1 to 1048576'],
    ['serac', 'weights', 'layers', 1e9, 'the setting layers must be a whole number from 1 to 1024'],
    ['ike', 'edit', 'layer', 'one', 'the setting layer must be a whole number from 0 to 3'],
    ['lte', 'weights', 'retrievalLayer', -1, 'the setting retrievalLayer must be a whole number from 0 to 3'],
  ];
  for (const [id, kind, name, value, says] of cases) {
    const path = written(id, kind, 'case.safetensors')!;
    changed(path, {
      settings: (given) =>
        Object.fromEntries(Object.entries({ ...given, [name]: value }).filter(([, v]) => v !== undefined)) as Settings,
    });
    const message = await told(id, kind, path);
    expect(message, `${id} ${name}`).toContain(`${path}: ${says}`);
  }
});

test("another editor's name, and tensors that are not its, are refused", async () => {
  for (const id of editorIds)
    for (const other of editorIds) {
      // KE and MEND change the same matrices in the same way: the edit is the same under either name.
      if (other === id || [id, other].sort().join() === 'ke,mend') continue;
      const path = written(id, 'edit', 'name.safetensors')!;
      changed(path, { editor: other });
      expect(await told(other, 'edit', path), `${id} as ${other}`).toBeTypeOf('string');
    }
});

test('any change of a setting or of a tensor is used or refused, and no shape that does not fit is used', async () => {
  const value = fc.constantFrom<Settings[string]>(1e9, -1, 0, 0.5, 1, 3, true, null, 'fast', [1, 2]);
  for (const id of editorIds)
    for (const kind of ['edit', 'weights'] as const) {
      if (written(id, kind, 'any.safetensors') === undefined) continue;
      const original = written(id, kind, `original-${id}-${kind}.safetensors`)!;
      const file = openSafetensors(original);
      const names = Object.keys(JSON.parse(file.metadata.settings!) as Settings);
      const path = at('any.safetensors');
      if (names.length > 0)
        await fc.assert(
          fc.asyncProperty(fc.constantFrom(...names), value, async (name, given) => {
            copyFileSync(original, path);
            changed(path, { settings: (all) => ({ ...all, [name]: given }) });
            const message = await told(id, kind, path);
            if (message !== undefined) expect(message).toContain(path);
          }),
          { numRuns: 25 },
        );
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom(...file.names()),
          fc.constantFrom('gone', 'longer', 'more', 'flat'),
          async (name, how) => {
            copyFileSync(original, path);
            changed(path, {
              tensors: (all) => {
                const { shape } = all.get(name)!;
                const data = all.get(name)!.data as Float32Array;
                const rows = Float32Array.from({ length: data.length + data.length / shape.at(-1)! }, (_, i) => data[i] ?? 0);
                if (how === 'gone') all.delete(name);
                if (how === 'longer')
                  all.set(name, { dtype: 'float32', shape: [...shape.slice(0, -1), shape.at(-1)! + 1], data: rows });
                if (how === 'more') all.set(`${name}.more`, all.get(name)!);
                if (how === 'flat') all.set(name, { dtype: 'float32', shape: [1, ...shape], data });
              },
            });
            const message = await told(id, kind, path);
            // Lengths that are free: of a signal, of contexts, of low ranks, neurons and memories.
            if (how === 'longer' && message === undefined) return;
            expect(message, `${id} ${kind} ${name} ${how}`).toContain(path);
          },
        ),
        { numRuns: 25 },
      );
    }
}, 120_000);
