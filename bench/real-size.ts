/**
 * `npm run bench:real-size`: what models of published sizes take, on random weights (docs/benchmarks.md has the figures). Each part prints its time and
 * the peaks of memory while it ran; a process of its own measures, after everything that is read from disk was written by others.
 *   --shape  llava-1.5-7b, blip2-opt-2.7b or minigpt4-7b (default llava-1.5-7b)     --dtype  int4, int8 or float16 (default int4)
 *   --parts  question,edit,prepare,step (default all; without prepare the step reads random states)     --max-memory  such as 8GB     --threads N (default 2)
 *   --dir    where the folders are made and kept (default runs/real-size)            --json  one JSON document
 */
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { table } from '../apps/cli/table.ts';
import { randomModelOf, writeRandomCheckpoint } from '../scripts/random-checkpoint.ts';
import type { EditorWeights } from '../src/editors/editor.ts';
import { modelId } from '../src/editors/editor.ts';
import { initialAdapter } from '../src/editors/vead/adapter.ts';
import { type PreparedRecord, Preparer } from '../src/editors/vead/prepare.ts';
import { stepFeeds, veadSettings, veadTrainer } from '../src/editors/vead/train.ts';
import { vead, veadConfig } from '../src/editors/vead/vead.ts';
import { decodeImage } from '../src/input/image/decode.ts';
import type { RecordQuery } from '../src/input/records.ts';
import { unedited } from '../src/models/answer.ts';
import { usualTokens } from '../src/models/architecture.ts';
import { loadModel } from '../src/models/load.ts';
import { parseBytes } from '../src/models/memory.ts';
import { quantize } from '../src/models/quantize.ts';
import type { Vlm } from '../src/models/vlm.ts';
import { Random } from '../src/random.ts';
import { watchMemory } from './memory.ts';
import { writeRecords } from './ours.ts';

const { values: given } = parseArgs({
  options: {
    shape: { type: 'string', default: 'llava-1.5-7b' },
    dtype: { type: 'string', default: 'int4' },
    parts: { type: 'string', default: 'question,edit,prepare,step' },
    'max-memory': { type: 'string' },
    threads: { type: 'string', default: '2' },
    dir: { type: 'string', default: 'runs/real-size' },
    json: { type: 'boolean', default: false },
    measure: { type: 'string' },
  },
});

interface Measured {
  part: string;
  seconds: number;
  /** time of the processor, on all threads: what other programs on the machine change least */
  cpu: number;
  private: number;
  resident: number;
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);

if (given.measure === undefined) await orderMeasurement();
else await measure(given.measure);

function hasImage(query: RecordQuery): boolean {
  return query.image !== null;
}

/** What a step reads of a record, of the right shapes. */
function randomStates(vlm: Vlm, asked: readonly RecordQuery[]): PreparedRecord {
  const random = new Random('states');
  const { hidden, vocabulary } = vlm.decoder;
  const samples = asked.map((query) => {
    const asked = { prompt: query.prompt, image: query.image === null ? undefined : vlm.anyPicture };
    const sequence = vlm.layout(asked, query.target);
    return { sequence, hidden: random.normals(sequence.ids.length * hidden, 1) };
  });
  return {
    samples,
    before: random.normals(samples[3]!.sequence.targetIds.length * vocabulary, 1),
    closer: {},
    influence: [0, 1, 2].map(() => new Float32Array(usualTokens(vlm.architecture)).fill(1)),
  };
}

/** Makes the folders, then measures in a fresh process. */
async function orderMeasurement(): Promise<void> {
  const floats = join(given.dir, given.shape);
  if (!existsSync(join(floats, 'model.safetensors'))) {
    say(`Writing ${floats} ...`);
    rmSync(floats, { recursive: true, force: true });
    await writeRandomCheckpoint(floats, randomModelOf(given.shape));
  }
  let folder = floats;
  if (given.dtype === 'int4' || given.dtype === 'int8') {
    folder = `${floats}-${given.dtype}`;
    if (!existsSync(folder)) {
      say(`Rounding it to ${given.dtype} ...`);
      await quantize(floats, { out: folder, dtype: given.dtype });
    }
  } else if (given.dtype !== 'float16') throw new Error(`--dtype ${given.dtype}: give int4, int8 or float16`);
  const child = spawnSync(
    process.execPath,
    [
      '--import',
      'tsx',
      fileURLToPath(import.meta.url),
      '--measure',
      folder,
      ...process.argv.slice(2).filter((word) => word !== '--json'),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', env: { ...process.env, VISEDIT_THREADS: given.threads } },
  );
  if (child.status !== 0) throw new Error(`measuring ended with code ${child.status} ${child.signal ?? ''}`);
  const measured = JSON.parse(child.stdout) as Measured[];
  if (given.json) {
    process.stdout.write(
      `${JSON.stringify({ shape: given.shape, dtype: given.dtype, threads: Number(given.threads), measured })}\n`,
    );
    return;
  }
  const gigabytes = (bytes: number): string => (bytes / 1e9).toFixed(2);
  const rows = measured.map((m) => [m.part, m.seconds.toFixed(1), m.cpu.toFixed(1), gigabytes(m.private), gigabytes(m.resident)]);
  process.stdout.write(`${given.shape}, ${given.dtype}, ${given.threads} threads\n`);
  process.stdout.write(
    `${table({ head: ['', 'seconds', 'processor seconds', 'private GB', 'resident GB'], rows, align: ['left', 'right', 'right', 'right', 'right'] })}\n`,
  );
}

async function measure(folder: string): Promise<void> {
  const parts = new Set(given.parts.split(','));
  const watch = await watchMemory();
  const measured: Measured[] = [];
  const part = async <T>(name: string, work: () => Promise<T> | T): Promise<T> => {
    watch.take();
    const started = performance.now();
    const cpu = process.cpuUsage();
    const result = await work();
    const { user, system } = process.cpuUsage(cpu);
    const line = { part: name, seconds: (performance.now() - started) / 1000, cpu: (user + system) / 1e6, ...watch.take() };
    measured.push(line);
    say(
      `${name}: ${line.seconds.toFixed(1)} s (processor ${line.cpu.toFixed(1)} s), private ${(line.private / 1e9).toFixed(2)} GB, resident ${(line.resident / 1e9).toFixed(2)} GB`,
    );
    return result;
  };
  const budget = given['max-memory'] === undefined ? undefined : parseBytes(given['max-memory']);
  const vlm = await part('open, with its fingerprint', () => {
    const opened = loadModel(folder, { maxMemory: budget });
    void opened.fingerprint;
    return opened;
  });
  say(`estimate: ${JSON.stringify(vlm.memory)}`);
  const [record] = await writeRecords(join(given.dir, 'pictures'), 1);
  const { request, queries } = record!;
  const image = await decodeImage(request.image);

  if (parts.has('question')) {
    const ask = (maxNewTokens: number) =>
      unedited(vlm).generate([{ image, prompt: request.prompt }], { maxNewTokens, eosIds: [] });
    await part('one image question, first token (opens the programs)', () => ask(1));
    await part('the same question again, 8 tokens', () => ask(8));
  }
  const config = veadConfig(vlm, { steps: 1, batch: 1 });
  const shape = { hidden: vlm.decoder.hidden, width: config.width, heads: config.heads, influenceWidth: config.influenceWidth };
  const adapter = initialAdapter(shape, new Random('real size'), false);
  if (parts.has('edit')) {
    const weights: EditorWeights = { editor: 'vead', model: modelId(vlm), settings: veadSettings(config), tensors: adapter };
    const [edit] = await part(`one VEAD edit at layer ${config.layer}`, () => vead.edit(vlm, [{ ...request, image }], weights));
    const five = await Promise.all(
      Object.values(queries).map(async (query) => ({
        prompt: query.prompt,
        target: query.target,
        ...(query.image === null ? {} : { image: await decodeImage(query.image) }),
      })),
    );
    const answers = await part('its five queries, edited', () => vead.with(vlm, [edit!]).answerTargets(five));
    if (!answers.every(({ logProbs }) => logProbs.every(Number.isFinite))) throw new Error('an answer has no finite probability');
  }
  if (parts.has('step')) {
    const preparer = new Preparer(vlm, [record!], config, new Random('real size'));
    const prepared = parts.has('prepare')
      ? await part('preparing one record for training', () => preparer.get([0]))
      : [randomStates(vlm, Object.values(queries).filter(hasImage))];
    await vlm.release();
    const sampled = Array.from({ length: config.sampled }, (_, i) => i);
    const feeds = stepFeeds(vlm, prepared, { choice: 0, sampled }, 0);
    const trainer = await part('opening the training step', () => veadTrainer(vlm, config, shape, adapter));
    const { loss } = await part('one VEAD training step, one record', () => trainer.run(feeds, config.rate));
    say(`loss ${loss}`);
    await trainer.release();
  }
  await vlm.release();
  await watch.stop();
  process.stdout.write(JSON.stringify(measured));
}
