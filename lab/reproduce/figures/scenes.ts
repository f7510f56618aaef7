/**
 * Questions whose answer stands in one known cell of the picture, so that it can be measured whether a layer looks there: fresh scenes with
 * two questions each, about different cells; and the cells that the records of a mini world ask about.
 */

import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Box } from '../../../src/attribution/map-measures.ts';
import { anyObject, readJsonAs } from '../../../src/files/schema.ts';
import { type EditRecord, openRecords } from '../../../src/input/records.ts';
import type { RgbImage } from '../../../src/input/segments.ts';
import { Random } from '../../../src/random.ts';
import { Atlas } from '../../world/atlas.ts';
import { buildWorld, splitterOf, type WorldManifest, worldVersion } from '../../world/build.ts';
import { concept, plainConcepts, sides } from '../../world/concepts.ts';
import { EditSampler } from '../../world/edits.ts';
import { answerTo, cellOf, prompt, type Question, sampleQuestion, templateCount } from '../../world/questions.ts';
import { canvas, render, type Scene, sampleScene } from '../../world/scene.ts';
import type { FigureOptions } from './figure.ts';

export interface AskedQuestion {
  readonly prompt: string;
  readonly answer: string;
  readonly kind: Question['kind'];
  readonly image: RgbImage;
  /** the asked thing's cell */
  readonly box: Box;
}

/** Kinds of questions about one thing in one place. */
const kinds = ['place', 'relation', 'category', 'where', 'kind'] as const;

/** The cell of the thing that a question is about. */
export function askedCell(scene: Scene, question: Question): number | undefined {
  switch (question.kind) {
    case 'place':
    case 'kind':
      return question.cell;
    case 'where':
      return cellOf(scene, question.concept);
    case 'relation': {
      const from = cellOf(scene, question.concept);
      return from === undefined ? undefined : from + sides[question.side]!.step;
    }
    case 'category': {
      const cells = scene.cells.flatMap((thing, cell) =>
        thing && concept(thing.concept).category === question.category ? [cell] : [],
      );
      return cells.length === 1 ? cells[0] : undefined;
    }
    default:
      return undefined;
  }
}

const cellBox = (cell: number): Box => [(cell % 2) / 2, (cell >> 1) / 2, 1 / 2, 1 / 2];
export const cellArea = 1 / 4;

/** `scenes` pictures of things with their own names, each with two questions about different cells. */
export async function askedQuestions(seed: string | number, scenes: number): Promise<[AskedQuestion, AskedQuestion][]> {
  const atlas = await Atlas.load();
  return Array.from({ length: scenes }, (_, i) => {
    const random = new Random(`${seed}/asked/${i}`);
    for (;;) {
      const scene = sampleScene(random, { pool: plainConcepts, count: 3 + random.int(2) });
      const image = { width: canvas, height: canvas, data: render(atlas, scene) };
      const [first, second] = [kinds[i % kinds.length]!, random.pick(kinds)].map((kind) => {
        const question = sampleQuestion(random, scene, kind, plainConcepts);
        const cell = question && askedCell(scene, question);
        if (question === undefined || cell === undefined) return undefined;
        const answer = answerTo(scene, question)!;
        return { kind, cell, answer, image, prompt: prompt(question, random.int(templateCount)), box: cellBox(cell) };
      });
      if (first !== undefined && second !== undefined && first.cell !== second.cell) return [first, second];
    }
  });
}

export interface FigureRecords {
  readonly records: readonly EditRecord[];
  /** the asked cell of a record, where the world tells it */
  box(record: EditRecord): Box | undefined;
  /** whether everything in it has its own name, so that a reader sees what the question says; true where that is not known */
  plain(record: EditRecord): boolean;
}

/** Test records of the given folder, or of a small mini world drawn into `out`. */
export async function figureRecords({ world, out, seed, log }: FigureOptions, limit: number): Promise<FigureRecords> {
  const folder = world ?? join(out, 'world');
  if (world === undefined) await drawWorld(folder, seed, limit, log);
  const { records } = openRecords(join(folder, 'vqa_test.json'), join(folder, 'images'), { kind: 'vqa', limit });
  const path = join(folder, 'manifest.json');
  const manifest = existsSync(path) ? (readJsonAs(path, anyObject) as Partial<WorldManifest>) : undefined;
  if (manifest?.version === undefined || manifest.version > worldVersion || manifest.seed === undefined)
    return { records, box: () => undefined, plain: () => true };
  // Edit i of a world is a function of its seed and its split, so what it asks about need not be stored.
  const { seed: drawn, split, hard } = manifest;
  const sampler = new EditSampler(splitterOf({ seed: drawn, ...(split && { split }) }), 'test', hard);
  return {
    records,
    box: (record) => {
      const draft = sampler.vqa(drawn, record.index);
      if (draft.pred !== record.pred || draft.alt !== record.request.target) return undefined;
      const cell = askedCell(draft.scene, draft.question);
      return cell === undefined ? undefined : cellBox(cell);
    },
    plain: ({ index }) => {
      const { scene, touched } = sampler.vqa(drawn, index);
      const shown = scene.cells.flatMap((thing) => (thing ? [thing.concept] : []));
      return [...shown, ...touched].every((one) => concept(one).misnamed === undefined);
    },
  };
}

async function drawWorld(folder: string, seed: number, records: number, log: (text: string) => void): Promise<void> {
  const sizes = { vqaTrain: 0, vqaTest: records, captionTrain: 0, captionTest: 0 };
  const path = join(folder, 'manifest.json');
  if (existsSync(path)) {
    const there = readJsonAs(path, anyObject) as Partial<WorldManifest>;
    if (there.version === worldVersion && there.seed === String(seed) && (there.sizes?.vqaTest ?? 0) >= records) return;
    rmSync(folder, { recursive: true });
  }
  log('Drawing scenes of the mini world ...');
  await buildWorld({ seed, out: folder, sizes });
}
