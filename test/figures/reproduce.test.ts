/** The paper's figures made from models: tiny random ones, so only what holds for any model is checked. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type FigureOptions, writeFigure } from '../../lab/reproduce/figures/figure.ts';
import { type FigureName, figureNames, paperFigures } from '../../lab/reproduce/figures/index.ts';
import { gatesOnPicture, influenceGates } from '../../lab/reproduce/figures/influence-gates.ts';
import { shownLayers } from '../../lab/reproduce/figures/maps.ts';
import { askedCell, askedQuestions, figureRecords } from '../../lab/reproduce/figures/scenes.ts';
import { concept, places } from '../../lab/world/concepts.ts';
import { answerTo, sampleQuestion } from '../../lab/world/questions.ts';
import { sampleScene } from '../../lab/world/scene.ts';
import { trace } from '../../src/attribution/trace.ts';
import { type EditorWeights, modelId } from '../../src/editors/editor.ts';
import { writeEditorWeights } from '../../src/editors/files.ts';
import { initialAdapter, visualEditAdapter } from '../../src/editors/vead/adapter.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { drawFigure, type Figure } from '../../src/figures/index.ts';
import { f32, i64, input, sigmoid } from '../../src/graph/index.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Weights } from '../../src/nn/weights.ts';
import { Random } from '../../src/random.ts';
import { fixturesDir, hasFixtures } from '../shared.ts';
import { randomPicture, tinySizes, writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder } from '../tiny-world.ts';

/** A second or two each on a machine of their own; busy ones need more. */
const patience = 240_000;

const dir = temporaryFolder();
const model = join(dir, 'tiny');
const weightsPath = join(dir, 'vead.safetensors');
const shape = { hidden: tinySizes.hidden, width: 16, heads: 4, influenceWidth: 16 };
let vlm: Vlm;
let weights: EditorWeights;

beforeAll(() => {
  // Scenes have four cells and the pictures six by six patches, as the minis have.
  writeRandomLlava(model, { side: 6 });
  vlm = loadModel(model, { threads: 1 });
  weights = {
    editor: 'vead',
    model: modelId(vlm),
    settings: { layer: 1, heads: 4 },
    tensors: initialAdapter(shape, new Random(3)),
  };
  writeEditorWeights(weightsPath, weights);
  mkdirSync(join(dir, 'sweep'));
  const metrics = { reliability: 1, textGenerality: 0.9, modalGenerality: 0.8, textLocality: 1, modalLocality: 0.7 };
  const rows = [0, 1, 2].map((layer) => ({ layer, ...metrics, average: 0.9 - 0.1 * Math.abs(layer - 1), count: 3 }));
  const contributions = { attn: [0.1, 0.2, 0.3], mlp: [0, 0.1, 0.2] };
  writeFileSync(join(dir, 'sweep', 'table2.json'), JSON.stringify({ model: 'tiny', rows, contributions }));
  mkdirSync(join(dir, 'training'));
  const lines = Array.from({ length: 150 }, (_, i) => ({
    step: i + 1,
    loss: 3 / (i + 1),
    rate: 1,
    gradientNorm: 1,
    seconds: 1,
    gate: 0.5,
  }));
  writeFileSync(join(dir, 'training', 'log.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
});
afterAll(async () => {
  await vlm.release();
  rmSync(dir, { recursive: true });
});

const options = (name: string, more: Partial<FigureOptions> = {}): FigureOptions => ({
  out: join(dir, name),
  world: existsSync(join(dir, 'figure1', 'world')) ? join(dir, 'figure1', 'world') : undefined,
  models: [model],
  weights: weightsPath,
  from: join(dir, name === 'layer-sweep' ? 'sweep' : 'training'),
  seed: 1,
  limit: 6,
  quick: true,
  threads: 1,
  log: () => {},
  ...more,
});

// sequential-costs is drawn from a finished table 5, where that is made: test/reproduce/table5.test.ts.
describe.each(figureNames.filter((name) => name !== 'sequential-costs'))('%s', (name) => {
  test(
    'writes SVG, PNG, data that draws the same picture, a manifest, and measures its claims',
    async () => {
      const given = options(name);
      const written = await writeFigure(name, await paperFigures[name](), given, `visedit reproduce ${name}`);
      const stored = JSON.parse(readFileSync(written.data, 'utf8')) as { figure: Figure; claims: unknown };
      const svg = readFileSync(join(given.out, `${name}.svg`), 'utf8');
      expect(svg.replace(/data:image[^"]+/g, '')).not.toMatch(/NaN|undefined|Infinity/);
      expect(await drawFigure(stored.figure)).toBe(svg);
      const { width } = await sharp(join(given.out, `${name}.png`)).metadata();
      // A column or the text of a paper, at three pixels for one.
      expect(width).toBeLessThanOrEqual(3 * 660);
      const manifest = JSON.parse(readFileSync(join(given.out, 'manifest.json'), 'utf8'));
      expect(manifest).toMatchObject({
        command: `visedit reproduce ${name}`,
        finished: true,
        identity: { figure: name, seed: 1 },
      });
      const files: { sha256: string }[] = manifest.identity.files;
      expect(files).toHaveLength(/figure[3489]|layer-sweep|training-curves/.test(name) ? 1 : 0);
      expect(written.claims.length > 0 || name === 'training-curves').toBe(true);
      for (const { claim, measured } of written.claims) expect(`${claim}${measured}`).not.toMatch(/NaN|undefined/);
    },
    patience,
  );
});

test(
  'claims can fail: a model that has learned nothing shows none of what trained models show',
  async () => {
    const make = async (name: FigureName) => (await paperFigures[name]()).make(options(`${name}-random`));
    const [wrongTokens] = (await make('figure6')).claims;
    expect(wrongTokens).toMatchObject({ holds: false, claim: expect.stringContaining('order of magnitude') });
    const { claims, measures } = await make('figure3');
    expect(claims[0]).toMatchObject({ holds: false, claim: expect.stringContaining('low edit intensities') });
    const { edited } = measures.shareInAskedCell as { edited: number };
    expect(Math.abs(edited - 0.25)).toBeLessThan(0.05);
  },
  patience,
);

test(
  'the same seed gives the same bytes',
  async () => {
    const make = async (name: string) => {
      const { data } = await writeFigure('figure7', await paperFigures.figure7(), options(name), 'again');
      return readFileSync(data, 'utf8');
    };
    expect(await make('again1')).toBe(await make('again2'));
  },
  patience,
);

test.runIf(hasFixtures)(
  'models that look at the picture through a Q-Former are drawn on its patches',
  async () => {
    for (const name of ['tiny-blip2-opt', 'tiny-minigpt4']) {
      const qFormer = loadModel(join(fixturesDir, name), { threads: 1 });
      const image = randomPicture(2, 32);
      const { count: visualTokens, grid: patchGrid } = qFormer.architecture.fixed!;
      const even = await gatesOnPicture(qFormer, image, new Array<number>(visualTokens).fill(0.25));
      expect(even).toHaveLength(patchGrid[0] * patchGrid[1]);
      for (const gate of even) expect(gate).toBeCloseTo(0.25, 5);
      await qFormer.release();
      const given = options(`figure7-${name}`, { models: [join(fixturesDir, name)] });
      const written = await writeFigure('figure7', await paperFigures.figure7(), given, 'Q-Former');
      expect(existsSync(written.data)).toBe(true);
    }
  },
  120_000,
);

test('gates are those of the adapter that edits', async () => {
  const image = randomPicture(1);
  const other = randomPicture(4);
  const prompt = 'What is in the middle? The answer is:';
  const [edit] = await vead.edit(vlm, [{ image, prompt, target: 'a cat' }], weights);
  const signal = edit!.tensors.get('signal')!;
  const [n, d] = signal.shape as [number, number];
  for (const picture of [image, other]) {
    const { activations, spans } = await trace(vlm, { prompt, image: picture }, ['layers.1.out']);
    const [start, end] = spans[0]![0]!;
    const program = await vlm.program(() => {
      const w = new Weights();
      for (const [name, { shape }] of weights.tensors) w.bind(name, input(name, shape));
      const given = {
        signal: input('signal', ['e', 'n', d]),
        bias: input('bias', ['e', 'n']),
        ends: input('ends', ['e'], 'int64'),
      };
      return { gate: sigmoid(visualEditAdapter(w, shape, input('visual', ['e', end - start, d]), given).gate) };
    });
    const { gate } = await program.run({
      ...Object.fromEntries(weights.tensors),
      visual: f32(activations.get('layers.1.out')!.data.slice(start * d, end * d), [1, end - start, d]),
      signal: f32(signal.data, [1, n, d]),
      bias: f32(new Float32Array(n), [1, n]),
      ends: i64([edit!.settings.promptEnd as number], [1]),
    });
    const found = await influenceGates(vlm, weights, edit!, picture);
    found.forEach((value, i) => {
      expect(value).toBeCloseTo((gate!.data as Float32Array)[i]!, 5);
    });
  }
});

test('the asked cell holds what the answer says', () => {
  const random = new Random('asked cells');
  let checked = 0;
  for (let i = 0; i < 300; i++) {
    const scene = sampleScene(random);
    for (const kind of ['place', 'relation', 'category', 'where', 'kind', 'count', 'background'] as const) {
      const question = sampleQuestion(random, scene, kind);
      const cell = question && askedCell(scene, question);
      if (question === undefined || cell === undefined) continue;
      const there = concept(scene.cells[cell]!.concept);
      const said = kind === 'where' ? places[cell] : kind === 'kind' ? there.category : there.word;
      expect(said).toBe(answerTo(scene, question));
      checked++;
    }
  }
  expect(checked).toBeGreaterThan(600);
});

test('two questions on one picture ask about different cells', async () => {
  for (const [a, b] of await askedQuestions('pairs', 10)) {
    expect(a.image).toBe(b.image);
    expect(a.box).not.toEqual(b.box);
  }
});

test('records of a drawn world know their asked cells; records of other data do not', async () => {
  const { records, box } = await figureRecords(options('cells', { world: undefined }), 12);
  const known = records.filter((record) => box(record) !== undefined);
  expect(known.length).toBeGreaterThan(5);
  for (const record of known) expect(['place', 'relation', 'category', 'where', 'kind']).toContain(record.kind);
  const folder = join(dir, 'cells', 'world');
  rmSync(join(folder, 'manifest.json'));
  const foreign = await figureRecords(options('cells2', { world: folder }), 12);
  expect(foreign.records.map(foreign.box)).toEqual(foreign.records.map(() => undefined));
});

test('of many layers eight are shown, the last among them', () => {
  expect(shownLayers([0, 1, 2])).toEqual([0, 1, 2]);
  const many = shownLayers(Array.from({ length: 32 }, (_, i) => i));
  expect(many).toEqual([3, 7, 11, 15, 19, 23, 27, 31]);
});

test('what is missing is named, with what to do', async () => {
  const make = async (name: FigureName, more: Partial<FigureOptions>) => (await paperFigures[name]()).make(options(name, more));
  await expect(make('layer-sweep', { from: dir })).rejects.toThrow(/no .*table2\.json; make it with: visedit reproduce table2/);
  await expect(make('training-curves', { from: dir })).rejects.toThrow(
    /no .*log\.jsonl; name a folder that `visedit train` wrote/,
  );
  await expect(make('figure3', { weights: undefined })).rejects.toThrow(/comes without weights of vead/);
  writeFileSync(join(dir, 'training', 'table2.json'), '{"model":"x","rows":[]}');
  await expect(make('layer-sweep', { from: join(dir, 'training') })).rejects.toThrow(/is no table of insert layers: rows/);
});
