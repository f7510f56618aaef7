/** inspect, generate, trace and attribute as a person runs them, on a tiny random model. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { editedModel } from '../../src/editors/apply.ts';
import { type EditorWeights, modelId } from '../../src/editors/editor.ts';
import { readEdit, writeEdit } from '../../src/editors/files.ts';
import { initialAdapter } from '../../src/editors/vead/adapter.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { openSafetensors } from '../../src/files/safetensors.ts';
import { loadModel } from '../../src/models/load.ts';
import { Random } from '../../src/random.ts';
import { randomPicture, tinySizes, writeRandomLlava } from '../tiny-model.ts';
import { visedit } from './start.ts';

const dir = mkdtempSync(join(tmpdir(), 'visedit-explain-'));
const model = join(dir, 'model');
const picture = join(dir, 'picture.png');
const prompt = 'What is at the top left? The answer is:';
const image = randomPicture(1);
const asked = ['--model', model, '--image', picture, '--prompt', prompt];
const edits = [join(dir, 'one.safetensors'), join(dir, 'two.safetensors')] as const;

beforeAll(async () => {
  writeRandomLlava(model);
  await sharp(image.data, { raw: { width: image.width, height: image.height, channels: 3 } })
    .png()
    .toFile(picture);
  const vlm = loadModel(model, { threads: 1 });
  const shape = { hidden: tinySizes.hidden, width: 16, heads: 4, influenceWidth: 16 };
  // Large enough that an edit with random weights changes what a random model says.
  const tensors = new Map(
    [...initialAdapter(shape, new Random(3))].map(([name, t]) => [name, { ...t, data: t.data.map((x) => 4 * x) }]),
  );
  const weights: EditorWeights = { editor: 'vead', model: modelId(vlm), settings: { layer: 1, heads: 4 }, tensors };
  const made = await vead.edit(
    vlm,
    [
      { image, prompt, target: 'a cat' },
      { image, prompt, target: 'an owl and a cow' },
    ],
    weights,
  );
  made.forEach((edit, i) => {
    writeEdit(edits[i]!, edit);
  });
  await vlm.release();
});
afterAll(() => rmSync(dir, { recursive: true }));

async function json(words: readonly string[]) {
  const { code, stdout, stderr } = await visedit([...words, '--json', '--quiet']);
  expect(code, stderr).toBe(0);
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

test('inspect tells sizes, storage and the suggested layer', async () => {
  const data = await json(['inspect', model]);
  expect(data).toMatchObject({
    name: 'model',
    architecture: 'llava',
    layers: 4,
    hidden: 32,
    heads: 4,
    visualTokens: 9,
    patchGrid: [3, 3],
    dtype: 'float32',
    files: 1,
    suggestedLayer: 1,
    tracedLayers: [2],
  });
  expect(data.bytes).toBeGreaterThan(4 * data.parameters);
  expect(data.fingerprint).toMatch(/^[0-9a-f]{32,}$/);
  expect(data.answering.map(({ type }: { type: string }) => type)).toEqual(['float32', 'float16', 'int8', 'int4']);
  const [float32, , , int4] = data.answering;
  expect(float32).toMatchObject({ residency: 'whole', fits: true });
  expect(int4.card).toBeLessThan(float32.card);
  const layers = Object.fromEntries(data.training.map((one: { editor: string; layers: number }) => [one.editor, one.layers]));
  // VEAD learns through the layers behind the one that it acts after, LTE through all.
  expect(layers).toMatchObject({ vead: 2, lte: 4, tp: 0, 'ft-v': 0 });
  expect(data.training.every(({ fits }: { fits: boolean }) => fits)).toBe(true);
});

test('generate: greedy, drawn by a seed, and under edits', async () => {
  const plain = await json(['generate', ...asked, '--max-new-tokens', '6']);
  expect(Object.keys(plain)).toEqual(['text', 'tokenIds', 'warnings']);
  expect(plain.tokenIds.length).toBeGreaterThan(0);
  const drawn = ['generate', ...asked, '--max-new-tokens', '6', '--temperature', '2', '--top-p', '0.9', '--seed', '4'];
  const [once, again] = await Promise.all([json(drawn), json(drawn)]);
  expect(once).toEqual(again);
  const both = await json(['generate', ...asked, '--max-new-tokens', '6', '--edit', edits[0], '--edit', edits[1]]);
  const vlm = loadModel(model, { threads: 1 });
  const chain = vead.chain!(vlm, edits.map(readEdit));
  expect(both.tokenIds).toEqual((await chain.generate([{ image, prompt }], { maxNewTokens: 6 }))[0]!.tokenIds);
  await vlm.release();
});

test('edits in a chain act one after the other: one is `with`, two are both, text passes untouched', async () => {
  const vlm = loadModel(model, { threads: 1 });
  const [one, two] = edits.map(readEdit) as [ReturnType<typeof readEdit>, ReturnType<typeof readEdit>];
  const query = { image, prompt, target: 'a cat' };
  const text = { prompt: 'What is at the top left?', target: 'a cat' };
  const read = async (of: readonly (typeof one)[]) =>
    (await (await editedModel(vlm, of)).answerTargets([query, text])).map(({ logProbs }) => logProbs);
  const [plain, first, second, both] = [await read([]), await read([one]), await read([two]), await read([one, two])];
  expect((await vead.chain!(vlm, [one]).answerTargets([query]))[0]!.logProbs).toEqual(first[0]);
  for (const other of [plain, first, second]) expect(both[0]).not.toEqual(other[0]);
  expect(both[1]).toEqual(plain[1]);
  await expect(editedModel(vlm, [one, { ...two, editor: 'serac' }])).rejects.toThrow(/do not combine \(vead, serac\)/);
  await expect(editedModel(vlm, [{ ...one, model: { name: 'another', fingerprint: 'ff' } }])).rejects.toThrow(/made for another/);
  await vlm.release();
});

test('trace writes the sites with what was fed', async () => {
  const out = join(dir, 'trace.safetensors');
  const data = await json(['trace', ...asked, '--sites', 'layers.*.out, visual', '--out', out]);
  const file = openSafetensors(out);
  expect(file.metadata).toMatchObject({ format: 'visedit trace', prompt, spans: JSON.stringify(data.spans) });
  expect(JSON.parse(file.metadata.model!)).toEqual(data.model);
  expect([...file.entries.keys()].sort()).toEqual(['layers.0.out', 'layers.1.out', 'layers.2.out', 'layers.3.out', 'visual']);
  expect(data.sites['layers.3.out']).toEqual([data.tokenIds.length, 32]);
  const wrong = await visedit(['trace', ...asked, '--sites', 'layer.*.out', '--out', out]);
  expect(wrong.code).toBe(1);
  expect(wrong.stderr).toMatch(/^visedit trace: no site is named "layer.\*.out"; there are: /);
});

test('attribute modules: numbers, a given key, bars', async () => {
  const out = join(dir, 'bars.svg');
  const data = await json(['attribute', 'modules', ...asked, '--key', 'cat', '--layers', '1-3', '--out', out]);
  expect(data.key).toMatchObject({ text: 'cat', predicted: false });
  expect(data.layers).toEqual([1, 2, 3]);
  for (const values of Object.values(data.contribution)) expect(values).toHaveLength(3);
  expect(readFileSync(out, 'utf8')).toMatch(/^<svg/);
  const wrong = await visedit(['attribute', 'modules', ...asked, '--key', 'zzz']);
  expect(wrong).toMatchObject({ code: 1 });
  expect(wrong.stderr).toMatch(/the key "zzz" is 4 tokens: .* a key is one token/);
});

test('attribute visual: a map per layer, the same for the same seed, as the paper and as its code', async () => {
  const out = join(dir, 'maps.png');
  const words = ['attribute', 'visual', ...asked, '--layers', '0,3', '--protocol', 'paper', '--draws', '2', '--seed', '3'];
  const data = await json([...words, '--out', out]);
  expect(data).toMatchObject({ grid: [3, 3], seen: [0, 0, 1, 1], protocol: 'paper', noiseAt: 'hidden', seed: 3 });
  expect(data.layers[0]).toMatchObject({ draws: 2, converged: false, carriesWeight: true });
  expect(data.layers.map((l: { layer: number }) => l.layer)).toEqual([0, 3]);
  expect(data.layers[0].values).toHaveLength(9);
  expect(readFileSync(out).subarray(1, 4).toString()).toBe('PNG');
  const [again, code] = await Promise.all([json(words), json([...words, '--noise-at', 'norm'])]);
  expect(again.layers).toEqual(data.layers);
  expect(code.layers[0].sigma).toBe(0.7);
  const wrong = await visedit([...words.slice(0, -2), '--layers', '2,7', '--sigma', 'much']);
  expect(wrong.stderr).toMatch(/--sigma 'much' is not a number above 0/);
});

test('attribute visual: a converged map is sure of itself, and says so when the budget ends before', async () => {
  const words = ['attribute', 'visual', ...asked, '--layers', '3'];
  const [map] = (await json(words)).layers;
  expect(map).toMatchObject({ converged: true, carriesWeight: true });
  expect(map.error).toBeLessThanOrEqual(0.05);
  expect(map.errors).toHaveLength(9);
  const few = await visedit([...words, '--budget', '4', '--error', '0.001']);
  expect(few.stdout).toMatch(/Not sure: layer 3\. Another seed may give another map; give a larger --budget/);
  const mixed = await visedit([...words, '--draws', '4']);
  expect(mixed.stderr).toMatch(/--draws is of --protocol paper/);
  const later = await json([...words, '--token', '2']);
  expect(later.layers[0].values).not.toEqual(map.values);
});

test('attribute knockout: the edges cut in each window of layers', async () => {
  const out = join(dir, 'knockout.svg');
  const data = await json(['attribute', 'knockout', ...asked, '--window', '1', '--out', out]);
  expect(data.windows).toEqual([[0], [1], [2], [3]]);
  expect(data.cut.map(({ edges }: { edges: string }) => edges)).toContain('picture → last');
  expect(readFileSync(out, 'utf8')).toMatch(/^<svg/);
  const edited = await json(['attribute', 'knockout', ...asked, '--window', '1', '--edit', edits[0], '--key', 'cat']);
  const plain = await json(['attribute', 'knockout', ...asked, '--window', '1', '--key', 'cat']);
  expect(edited.without.probability).toBeCloseTo(plain.key.probability, 5);
  edited.difference.forEach((row: number[], r: number) => {
    row.forEach((value, c) => {
      expect(value).toBeCloseTo(edited.cut[r].fall[c] - plain.cut[r].fall[c], 5);
    });
  });
  const wrong = await visedit(['attribute', 'knockout', ...asked, '--layers', '7']);
  expect(wrong.stderr).toMatch(/layers '7' is out of range: there are layers 0 to 3/);
});
