/** VEAD's training steps: influence targets with the reference's noise (VisEdit Eq. 23), losses and their parts (Eq. 17-24), gradients, Adam. */
import { basename } from 'node:path';
import type { Sample } from '../../src/editors/context/states.ts';
import type { Edit } from '../../src/editors/editor.ts';
import { type AdapterShape, adapterShapeOf } from '../../src/editors/vead/adapter.ts';
import { groups } from '../../src/editors/vead/objective.ts';
import { influenceTargets, Preparer } from '../../src/editors/vead/prepare.ts';
import { stepFeeds, type VeadConfig, veadTrainer } from '../../src/editors/vead/train.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { f32, type Tensor } from '../../src/graph/dtype.ts';
import { visualPlaces } from '../../src/models/sequence.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { tolerances } from './checks.ts';
import type { Fixture } from './fixture.ts';
import { checkTarget } from './influence-target.ts';
import { disturbedRuns, mapperFeeds, replayTrainer, underEdits, valuesOf } from './replay.ts';
import type { Subject } from './subject.ts';
import { checkFinalWeights, checkGradients, firstGradients, spreadOf, type Values } from './trained-weights.ts';
import { adapterWeights, editorWeights } from './vead.ts';

type Training = NonNullable<Fixture['meta']['training']>;
type Metrics = Record<string, number>;

/** A part of the reference's log by its name, from the objective's metrics; names of the mapper's parts end in the layer's name. */
const parts: [RegExp, (m: Metrics, config: Training['config']) => number | Record<string, number>][] = [
  [/^Reliability loss$/, (m, c) => m.rel! * c.rel],
  [/^Generality loss$/, (m, c) => ({ text_rephrase: m.textGen! * c.gen, image_rephrase: m.modalGen! * c.gen })],
  // The text term is zero by construction.
  [/^Locality loss$/, (m, c) => ({ image_loc: m.loc! * c.loc, text_loc: 0 })],
  [/^Influence predict sigmoid rel-gen mean/, (m) => m.gateRight!],
  [/^Influence predict sigmoid loc mean/, (m) => m.gateWrong!],
  [/^Influence mapper rel-gen relative loss/, (m, c) => m.ima! * c.influence_mapper],
  [/^Influence mapper rel-gen up loss/, (m, c) => m.up! * c.influence_mapper],
  [/^Influence mapper loc down loss/, (m, c) => m.down! * c.influence_mapper],
  [/^reliability$/, (m, c) => m.rel! * c.rel],
  [/^text_rephrase$/, (m, c) => m.textGen! * c.gen],
  [/^image_rephrase$/, (m, c) => m.modalGen! * c.gen],
  [/^image_loc$/, (m, c) => m.loc! * c.loc],
  [/^influence_relative$/, (m, c) => m.ima! * c.influence_mapper],
  [/^influence_up$/, (m, c) => m.up! * c.influence_mapper],
  [/^influence_down$/, (m, c) => m.down! * c.influence_mapper],
];

/** The reference's names of the samples, in the order of the objective's groups. */
const choices = ['reliability', 'text_rephrase', 'image_rephrase'];

/** Stored noise [layers, tokens, draws, batch, d] as one [batch, tokens, draws, d] per traced layer. */
function noiseOf(stored: Tensor<'float32'>, traced: readonly number[]): Map<number, Tensor<'float32'>> {
  const [layers, tokens, draws, batch, d] = stored.shape as [number, number, number, number, number];
  if (layers !== traced.length) throw new Error(`noise is for ${layers} layers, ${traced.length} are traced`);
  const row = tokens * draws;
  return new Map(
    traced.map((layer, l) => {
      const data = new Float32Array(batch * row * d);
      for (let r = 0; r < row; r++)
        for (let b = 0; b < batch; b++) {
          const from = ((l * row + r) * batch + b) * d;
          data.set(stored.data.subarray(from, from + d), (b * row + r) * d);
        }
      return [layer, f32(data, [batch, tokens, draws, d])];
    }),
  );
}

export async function checkTraining(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const { training, vead: adapter } = fixture.meta;
  if (training === undefined) return;
  if (adapter === undefined) throw new Error('meta.json has training, but no vead: the adapter is not known');
  const { config, steps } = training;
  const initial = adapterWeights(fixture);
  const shape = adapterShapeOf(initial, adapter.heads);
  const layer = adapter.edit_layer;
  const traced = config.traced_layers;
  const whole = trainerConfig(training, shape, layer);
  // Without traced layers the preparer leaves the influence targets out: they are made below, with the reference's noise.
  const preparer = new Preparer(vlm, fixture.records(), { ...whole, traced: [] }, new Random(0));
  const replay = await replayTrainer(vlm, whole, shape, initial);
  const run: Record<string, Tensor>[] = [];
  let inPlace: Edit[] | undefined;
  try {
    for (const [s, step] of steps.entries()) {
      const choice = choices.indexOf(step.generality_choice);
      if (choice < 0)
        throw new Error(
          `step ${s}: generality_choice ${JSON.stringify(step.generality_choice)} is none of ${choices.join(', ')}`,
        );
      const prepared = await preparer.get(step.records);
      const states = (group: number): Promise<readonly Sample[]> | readonly Sample[] => {
        const samples = prepared.map((p) => p.samples[group]!);
        return inPlace === undefined ? samples : underEdits(vlm, layer, samples, inPlace);
      };
      const [edit, right, wrong] = await Promise.all([states(0), states(choice), states(groups.indexOf('modalLocality'))]);
      const sampled = step.sampled_visual_tokens;
      const noise = noiseOf(fixture.need(`${training.prefix(s)}noise`), traced);
      const c = await targetsOf(vlm, layer, traced, edit, right, sampled, noise);
      const feeds = stepFeeds(vlm, prepared, { choice, sampled }, 0, c);
      const where = `${training.prefix(s)}influence_target`;
      const own = feeds.target as Tensor<'float32'>;
      const expected = fixture.tensor(where);
      const target = expected === undefined ? own : checkTarget(checks, where, own, c, expected);
      const all = { ...feeds, target, ...mapperFeeds(vlm, edit, right, wrong, sampled) };
      run.push(all);
      checkLosses(subject, training, s, await replay.run(all, config.lr));
      inPlace = await editsOf(subject, step.records, replay.weights);
    }
    if (run[0] === undefined) return;
    const final = valuesOf(replay.weights);
    // The first step is that of `trainVead`, too.
    const gradients = await firstStep(subject, training, whole, shape, initial, run[0]);
    const disturbed = await disturbedRuns(replay, valuesOf(initial), run, config.lr);
    checkGradients(
      subject,
      gradients,
      spreadOf(
        gradients,
        disturbed.map((d) => d.gradients),
      ),
    );
    checkFinalWeights(
      subject,
      final,
      spreadOf(
        final,
        disturbed.map((d) => d.weights),
      ),
      2 * steps.length * config.lr,
    );
  } finally {
    await replay.release();
  }
}

/** The step that users train with: checks its losses, returns its gradients. */
async function firstStep(
  subject: Subject,
  training: Training,
  whole: VeadConfig,
  shape: AdapterShape,
  initial: ReadonlyMap<string, Tensor<'float32'>>,
  feeds: Record<string, Tensor>,
): Promise<Values> {
  const trainer = await veadTrainer(subject.vlm, whole, shape, initial, subject.vlm.compileOptions.threads);
  try {
    checkLosses(subject, training, 0, await trainer.run(feeds, whole.rate));
    return firstGradients(trainer.state());
  } finally {
    await trainer.release();
  }
}

/** Influence targets [batch, tokens]; records whose visual tokens stand at the same places are computed together. */
async function targetsOf(
  vlm: Vlm,
  layer: number,
  traced: readonly number[],
  edit: readonly Sample[],
  right: readonly Sample[],
  sampled: readonly number[],
  noise: ReadonlyMap<number, Tensor<'float32'>>,
): Promise<Float32Array> {
  const out = new Float32Array(right.length * sampled.length);
  const places = right.map(({ sequence }) => {
    const all = visualPlaces(sequence);
    return sampled.map((t) => all[t]!);
  });
  const keys = places.map((own) => own.join());
  for (const key of new Set(keys)) {
    const rows = keys.flatMap((own, b) => (own === key ? [b] : []));
    const own = [...noise].map(
      ([
        i,
        {
          data,
          shape: [batch, ...rest],
        },
      ]) => {
        const size = data.length / batch!;
        const parts = rows.flatMap((b) => [...data.subarray(b * size, (b + 1) * size)]);
        return [i, f32(parts, [rows.length, ...rest])] as const;
      },
    );
    const of = (samples: readonly Sample[]): Sample[] => rows.map((b) => samples[b]!);
    const c = await influenceTargets(vlm, layer, traced, of(edit), of(right), places[rows[0]!]!, new Map(own));
    rows.forEach((b, n) => {
      out.set(c.subarray(n * sampled.length, (n + 1) * sampled.length), b * sampled.length);
    });
  }
  return out;
}

function trainerConfig({ config, steps }: Training, shape: AdapterShape, layer: number): VeadConfig {
  const lambda = config.influence_mapper;
  return {
    layer,
    traced: config.traced_layers,
    width: shape.width,
    heads: shape.heads,
    influenceWidth: shape.influenceWidth,
    steps: steps.length,
    batch: steps[0]?.records.length ?? 1,
    rate: config.lr,
    muonRate: 0,
    hold: 1,
    lastRate: 1,
    clip: null,
    sampled: steps[0]?.sampled_visual_tokens.length ?? 1,
    draws: 1,
    sigma: 0,
    losses: { rel: config.rel, gen: config.gen, loc: config.loc, up: lambda, down: lambda, attribution: lambda, others: 0 },
    parts: { influenceMapper: true, crossAttention: true },
    hint: { bias: 0, until: 0, end: 0 },
    valueCopy: false,
    microBatch: Number.POSITIVE_INFINITY,
    locality: { sameImage: 0, sameQuestion: 0 },
    budget: 0,
  };
}

/** The edits of a step's records under weights. */
async function editsOf(
  subject: Subject,
  records: readonly number[],
  tensors: ReadonlyMap<string, Tensor<'float32'>>,
): Promise<Edit[]> {
  const { fixture, vlm } = subject;
  const requests = records.map((r) => fixture.records()[r]!.request);
  const pictures = await Promise.all(requests.map(({ image }) => fixture.picture(basename(image))));
  return vead.edit(
    vlm,
    requests.map((request, i) => ({ ...request, image: pictures[i]! })),
    { ...editorWeights(subject), tensors: new Map(tensors) },
  );
}

function checkLosses(
  { checks }: Subject,
  { config, steps }: Training,
  step: number,
  { loss, metrics }: { loss: number; metrics: Record<string, Tensor> },
): void {
  const expected = steps[step]!;
  if (expected.loss !== undefined) checks.relative('training.loss', tolerances.loss, `step ${step}`, loss, expected.loss);
  const values = Object.fromEntries(Object.entries(metrics).map(([name, t]) => [name, (t.data as Float32Array)[0]!]));
  for (const [name, value] of Object.entries(expected.parts)) {
    const found = parts.find(([pattern]) => pattern.test(name))?.[1](values, config);
    const actual = typeof found === 'object' ? found : { '': found };
    for (const [sample, wanted] of Object.entries(typeof value === 'object' ? value : { '': value })) {
      const where = `step ${step}, ${name}${sample === '' ? '' : `, ${sample}`}`;
      const got = (actual as Record<string, number | undefined>)[sample];
      if (got === undefined) checks.fail('training.parts', `${where}: there is no such part`, tolerances.loss);
      else checks.relative('training.parts', tolerances.loss, where, got, wanted);
    }
  }
}
