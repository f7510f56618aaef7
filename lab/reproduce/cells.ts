/**
 * The machinery of all tables: trains and evaluates the cells that a table asks for and that are not finished in its folder yet. Each cell goes on
 * where it was stopped; a cell that fails does not keep the others from being done. Work goes on in TABLE/work, finished cells stand beside it
 * (cell-store.ts).
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import type { Editor, Settings, TrainOptions } from '../../src/editors/editor.ts';
import { readEditorWeights, trainedWeights } from '../../src/editors/files.ts';
import { findEditor } from '../../src/editors/outside.ts';
import { namedSettings, trainOptionNames } from '../../src/editors/settings.ts';
import { findShippedWeights, shippedWeights } from '../../src/editors/shipped.ts';
import { noCosts } from '../../src/evaluation/costs.ts';
import { type Job, protocolOf } from '../../src/evaluation/job.ts';
import { differences, fileId, type Manifest, manifestFile, versions } from '../../src/evaluation/manifest.ts';
import { type Hands, type RunOptions, runEvaluation } from '../../src/evaluation/runner.ts';
import { runSequential, sequentialFolder } from '../../src/evaluation/sequential.ts';
import { readResults } from '../../src/evaluation/store.ts';
import { trainEditor } from '../../src/evaluation/training.ts';
import { writeFileAtomic } from '../../src/files/atomic.ts';
import { anyObject, readJsonAs } from '../../src/files/schema.ts';
import type { DatasetKind } from '../../src/input/records.ts';
import { loadModel, modelFolder } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import type { WeightType } from '../../src/models/weight-types.ts';
import { logFile, Stopped } from '../../src/nn/loop.ts';
import { type Protocol, recipeOf, withRecipe } from '../recipes.ts';
import {
  type Cell,
  type CellIdentity,
  type CellManifest,
  type Lifelong,
  packRecords,
  readCells,
  seedFolder,
  thinnedCurve,
  workFolder,
  writeCell,
} from './cell-store.ts';
import { DataIdentities, datasets, type TableData } from './data.ts';
import { expectedSeconds, WorkProgress, type WorkReport } from './progress.ts';
import { type Recipe, stagesOf } from './recipes.ts';

/** What a table asks for. */
export interface CellRequest {
  /** folder or built-in name */
  readonly model: string;
  readonly dataset: DatasetKind;
  /** id, or a module that exports an editor */
  readonly editor: string;
  /** of an editor that is trained in several ways, as `layer-3` */
  readonly variant?: string;
  readonly seed: number;
  /** how to train, where the editor's own defaults are not meant */
  readonly training?: Recipe | undefined;
  /** settings of each edit beyond the protocol's */
  readonly edit?: Settings | undefined;
  /** whether weights that come with the model are taken, where they are of its seed */
  readonly shipped: boolean;
}

export interface CellsOptions {
  readonly out: string;
  readonly data: TableData;
  /** records evaluated: the first so many; all when absent */
  readonly limit?: number | undefined;
  /** records trained on: the first so many; all when absent */
  readonly trainLimit?: number | undefined;
  readonly jobs?: number | undefined;
  /** evaluates records in the place of this machine */
  readonly hands?: Hands | undefined;
  readonly threads?: number | undefined;
  readonly dtype?: WeightType | undefined;
  /** how editors are set; `tuned` when absent */
  readonly protocol?: Protocol | undefined;
  /** edits that stay (Table 5); each record's own edit alone when absent */
  readonly lifelong?: Lifelong | undefined;
  /** finished cells that were made otherwise are made anew instead of refused */
  readonly redo?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly command: string;
  readonly log: (text: string) => void;
  readonly onProgress?: ((report: WorkReport) => void) | undefined;
}

/** Longest free answers, in tokens: a few words, or a caption. */
const answerTokens: Readonly<Record<DatasetKind, number>> = { vqa: 8, caption: 24 };
const batch = 16;

interface Stage {
  readonly options: Partial<TrainOptions>;
  /** records to train on: the first so many */
  readonly limit: number | undefined;
  readonly folder: string;
}

interface Planned {
  readonly request: CellRequest;
  readonly place: string;
  readonly identity: CellIdentity;
  readonly shipped: string | undefined;
  /** trainings in their order, where there are any */
  readonly stages: readonly Stage[];
  /** that the editor's training is set to, its own defaults included */
  readonly settings: Settings | undefined;
  /** of each edit */
  readonly perEdit: Settings;
}

/** The name of a model's folder in a table. */
export const modelName = (model: string): string => basename(modelFolder(model));

const cellPlace = ({ model, dataset, variant }: CellRequest, { id, seed }: CellIdentity['editor']): string =>
  [modelName(model), dataset, id, ...(variant === undefined ? [] : [variant]), seedFolder(seed)].join('/');

const label = ({ model, dataset, variant }: CellRequest, { id, seed }: CellIdentity['editor']): string =>
  [
    `${id}${variant === undefined ? '' : ` ${variant}`} on ${modelName(model)}`,
    datasets[dataset],
    ...(seed === null ? [] : [`seed ${seed}`]),
  ].join(', ');

/**
 * Does what is missing and returns the cells asked for.
 * @throws Stopped when the signal asks, the same call goes on; Error that names finished cells which were made otherwise, before any work; Error that
 * names the cells that failed, after the others
 */
export async function runCells(requests: readonly CellRequest[], options: CellsOptions): Promise<Cell[]> {
  const plans = await planned(requests, options);
  const finished = cellsByPlace(options.out);
  const missing = plans.filter((plan) => !isFinished(plan, finished.get(plan.place), options));
  const progress = new WorkProgress(
    missing.map(({ identity }) => expectedSeconds(identity)),
    options.onProgress ?? (() => {}),
  );
  const { length } = plans;
  options.log(
    missing.length === 0
      ? `All ${length} cells are finished in ${options.out}.`
      : `${length} cells, ${length - missing.length} finished, ${missing.length} to do: about ${progress.expected()} on one core for models of the minis' size.`,
  );
  const failures: string[] = [];
  for (const plan of missing) {
    const what = label(plan.request, plan.identity.editor);
    progress.begin(what);
    try {
      await work(plan, options, progress);
    } catch (error) {
      if (error instanceof Stopped || options.signal?.aborted) throw error;
      failures.push(`${what}: ${(error as Error).message}`);
      options.log(`FAILED ${failures.at(-1)}`);
    }
    progress.end();
  }
  if (failures.length > 0)
    throw new Error(
      `${failures.length} of ${missing.length} cells failed; the others are finished, and the same command tries these again:\n  ${failures.join('\n  ')}`,
    );
  const cells = cellsByPlace(options.out);
  return plans.map(({ place }) => cells.get(place)!);
}

const cellsByPlace = (table: string): Map<string, Cell> => new Map(readCells(table).map((cell) => [cell.place, cell]));

/** Requests with all that their figures depend on, each place once. */
async function planned(requests: readonly CellRequest[], options: CellsOptions): Promise<Planned[]> {
  const { data, limit, trainLimit, dtype, lifelong, protocol = 'tuned' } = options;
  const identities = new DataIdentities(data.images);
  const models = new Map<string, Vlm>();
  const plans = new Map<string, Planned>();
  for (const request of requests) {
    const { model, dataset, training } = request;
    const editor = await findEditor(request.editor);
    const files = data.files[dataset];
    if (files === undefined) throw new Error(`there are no records of ${datasets[dataset]}; name a file with --data-${dataset}`);
    if (!models.has(model)) models.set(model, loadModel(model, { dtype }));
    const vlm = models.get(model)!;
    const { name, fingerprint } = vlm;
    // What is not trained draws no random numbers.
    const seed = editor.trained ? request.seed : null;
    const shipped = request.shipped && seed !== null ? shippedFor(model, editor.id, dataset, fingerprint, seed) : undefined;
    if (seed !== null && shipped === undefined && files.train === undefined)
      throw new Error(
        `${editor.id} has to be trained and there are no training records of ${datasets[dataset]}; name a second file with --data-${dataset}`,
      );
    const recipes = seed === null || shipped !== undefined ? [] : stagesOf(training ?? {});
    const start = recipes[0]?.from === 'shipped' ? shippedWeights(model, editor.id, dataset) : undefined;
    const identified = (recipe: Recipe): CellIdentity['editor']['training'] => ({
      ...recipe,
      data: identities.of(files.train!, trainLimit),
      limit: trainLimit ?? recipe.records ?? null,
      ...(start === undefined ? {} : { start: fileId(start).sha256 }),
    });
    const test = identities.of(files.test, limit);
    const identity: CellIdentity = {
      model: { name, fingerprint, ...(dtype === undefined ? {} : { dtype }) },
      editor: {
        id: editor.id,
        seed,
        ...(shipped === undefined ? {} : { shipped: fileId(shipped).sha256 }),
        ...(recipes.length === 0 ? {} : { training: identified(recipes.at(-1)!) }),
        ...(request.edit === undefined ? {} : { edit: request.edit }),
      },
      data: { ...test, kind: dataset, evaluated: Math.min(limit ?? test.records, test.records) },
      protocol: protocolOf(batch, answerTokens[dataset], protocol),
      ...(lifelong === undefined ? {} : { lifelong: within(lifelong, Math.min(limit ?? Infinity, test.records)) }),
    };
    const place = cellPlace(request, identity.editor);
    let startWeights = start;
    let settings: Settings | undefined;
    const stages = recipes.map((recipe): Stage => {
      const how = trainingOf(vlm, editor, recipe, startWeights, protocol);
      settings = editor.trainingSettings?.(vlm, how);
      const id = hash([identity.model, { ...identity.editor, training: identified(recipe) }, settings]);
      const folder = join(options.out, workFolder, 'training', `${place.replaceAll('/', '_')}_${id}`);
      startWeights = trainedWeights(folder);
      return { options: how, limit: trainLimit ?? recipe.records, folder };
    });
    const perEdit = { ...recipeOf(vlm.decoder, editor.id, protocol).edit, ...request.edit };
    plans.set(place, { request, place, identity, shipped, stages, settings, perEdit });
  }
  for (const vlm of models.values()) await vlm.release();
  return [...plans.values()];
}

/** No more edits than records, and a sample where it is one. */
const within = ({ edits, moments, sample }: Lifelong, records: number): Lifelong => ({
  ...{ edits: Math.min(edits, records), moments },
  ...(sample === undefined || sample >= records ? {} : { sample }),
});

/** Options of a training: those of the recipe for the model's size, and what is asked for of them that this editor has. */
function trainingOf(
  vlm: Vlm,
  { id, settings }: Editor,
  { from: _, records: __, ...asked }: Recipe,
  startWeights: string | undefined,
  protocol: Protocol,
): Partial<TrainOptions> {
  const { missing } = namedSettings(settings?.train?.(vlm) ?? z.object({}), asked);
  const own = Object.entries(asked).filter(([name]) => !missing.includes(trainOptionNames[name as 'steps' | 'layer']));
  const options = {
    ...(Object.fromEntries(own) as Partial<TrainOptions>),
    ...(startWeights === undefined ? {} : { startWeights }),
  };
  return withRecipe(vlm.decoder, id, options, protocol);
}

/** Weights that come with a model count for the seed that they were trained with. */
function shippedFor(model: string, editor: string, dataset: DatasetKind, fingerprint: string, seed: number): string | undefined {
  const path = findShippedWeights(model, editor, dataset);
  if (path === undefined) return undefined;
  const weights = readEditorWeights(path);
  return weights.model.fingerprint === fingerprint && weights.settings.seed === String(seed) ? path : undefined;
}

function isFinished(
  { place, identity, request, settings = {} }: Planned,
  cell: Cell | undefined,
  { out, redo }: CellsOptions,
): boolean {
  if (cell === undefined) return false;
  const { weights } = cell.manifest;
  // The weights' settings say more than how they are trained, such as what a threshold was fitted to.
  const trained = Object.fromEntries(Object.keys(settings).map((name) => [name, weights?.settings[name]]));
  const different = [...differences(cell.manifest.identity, identity), ...differences(trained, settings, 'settings')];
  if (different.length === 0) return true;
  if (redo) return false;
  throw new Error(
    `${join(out, place)} (${label(request, identity.editor)}) holds results that were made with other settings. Give --redo to replace them, or name another folder with --out. What differs:\n  ${different.join('\n  ')}`,
  );
}

async function work(plan: Planned, options: CellsOptions, progress: WorkProgress): Promise<void> {
  const { identity, request, place, shipped, stages, settings, perEdit } = plan;
  const { out, data, jobs, hands, threads, signal, command, limit, dtype } = options;
  const home = join(out, workFolder);
  const name = place.replaceAll('/', '_');
  const evaluating = join(home, 'evaluation', `${name}_${hash([identity, settings])}`);
  let weights = shipped;
  for (const stage of stages) weights = await trained(plan, stage, options, progress);
  const job: Job = {
    model: request.model,
    editor: request.editor,
    weights,
    settings: perEdit,
    protocol: identity.protocol.name,
    data: data.files[request.dataset]!.test,
    images: data.images,
    limit,
    batch: identity.protocol.batch,
    maxNewTokens: identity.protocol.maxNewTokens,
    dtype,
    unedited: join(home, 'unedited'),
  };
  const { evaluation, manifest, records, points } = await evaluated(job, identity.lifelong, {
    out: evaluating,
    resume: existsSync(join(evaluating, manifestFile)),
    jobs,
    hands,
    threads,
    command,
    signal,
    onProgress: (done, total) => progress.evaluated(done, total),
  });
  const manifests = stages.map(
    ({ folder }) => readJsonAs(join(folder, 'manifest.json'), anyObject) as Partial<Manifest<unknown>>,
  );
  const seconds = manifests.flatMap(({ timings }) => timings?.seconds ?? []);
  const finished: CellManifest = {
    command,
    identity,
    finished: true,
    versions: versions(),
    weights: weights === undefined ? null : { sha256: fileId(weights).sha256, settings: readEditorWeights(weights).settings },
    seconds: {
      training: seconds.length === 0 ? null : seconds.reduce((a, b) => a + b),
      evaluation: manifest.timings.seconds,
    },
    costs: manifest.costs ?? noCosts,
  };
  const last = stages.at(-1);
  const log = last && join(last.folder, logFile);
  writeCell(out, {
    place,
    manifest: finished,
    evaluation,
    ...(last === undefined ? {} : { training: manifests.at(-1)! }),
    ...(log !== undefined && existsSync(log) ? { curve: thinnedCurve(readFileSync(log, 'utf8')) } : {}),
    records,
    ...(points === undefined ? {} : { points }),
  });
  rmSync(evaluating, { recursive: true, force: true });
}

type Evaluated = Pick<Cell, 'evaluation' | 'records' | 'points'> & {
  readonly manifest: Pick<Manifest<unknown>, 'timings' | 'costs'>;
};

/** Each record's own edit, or edits that stay. */
async function evaluated(job: Job, lifelong: Lifelong | undefined, options: RunOptions): Promise<Evaluated> {
  if (lifelong === undefined) {
    const { evaluation, manifest } = await runEvaluation(job, options);
    return { evaluation, manifest, records: packRecords(readResults(options.out)) };
  }
  const { edits, ...asking } = lifelong;
  const found = await runSequential(job, edits, { ...options, restarts: true, ...asking });
  const points = found.points.map((point, i) => ({
    ...point,
    costs: found.costs[i]!.costs,
    records: packRecords(readResults(join(options.out, sequentialFolder(point.edits)))),
  }));
  const { evaluation, records } = points.at(-1)!;
  return { evaluation, manifest: found.manifest, records, points };
}

const hash = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 10);

/** The weights file of a training, which goes on where it was stopped. */
async function trained(
  { request, identity }: Planned,
  { options: training, limit, folder }: Stage,
  options: CellsOptions,
  progress: WorkProgress,
): Promise<string> {
  const { data, threads, signal, command, dtype } = options;
  const done = join(folder, 'trained');
  if (!existsSync(done)) {
    const editor = await findEditor(request.editor);
    await trainEditor(
      {
        model: request.model,
        editor,
        data: data.files[request.dataset]!.train!,
        images: data.images,
        limit,
        opening: { dtype },
      },
      {
        ...training,
        protocol: identity.protocol.name,
        out: folder,
        seed: identity.editor.seed!,
        threads,
        signal,
        command,
        resume: existsSync(folder),
        onStep: ({ step, steps, loss }) => progress.trained(step, steps, loss),
      },
    );
    // An index that was stopped half-way is not the editor's.
    if (signal?.aborted) throw new Stopped('stopped before the training was finished');
    writeFileAtomic(done, '');
  }
  return trainedWeights(folder);
}
