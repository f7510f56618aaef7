import { z } from 'zod';
import { type EditorWeights, modelId } from '../../src/editors/editor.ts';
import { expertRewrite, liveEdit, queryKeys, type Routed, routes, shapeOf } from '../../src/editors/live-edit/live-edit.ts';
import { similarityScale } from '../../src/editors/live-edit/modules.ts';
import { liveEditFeeds, liveEditObjective, type RecordDraw } from '../../src/editors/live-edit/train.ts';
import { StoredKeys } from '../../src/editors/routing/stored-keys.ts';
import type { groups } from '../../src/editors/vead/objective.ts';
import { Preparer } from '../../src/editors/vead/prepare.ts';
import type { Tensor } from '../../src/graph/dtype.ts';
import { Trainer } from '../../src/nn/trainer.ts';
import { Random } from '../../src/random.ts';
import { compile } from '../../src/runtime/node.ts';
import { tolerances } from './checks.ts';
import { expectedPart } from './fixture.ts';
import { batchOf, type Subject } from './subject.ts';
import { firstGradients } from './trained-weights.ts';

const numbers = z.array(z.number());
const range = z.tuple([z.int(), z.int()]);
const retrieval = z.object({
  vis_sim: numbers,
  vis_sim_prot: z.number(),
  selected: z.array(z.int()),
  relative: numbers,
  absolute: numbers,
  fuse: numbers,
});
const kind = z.enum(['reliability', 'text_rephrase', 'image_rephrase', 'image_loc']);
const pairs = z.object({ input: z.array(kind), edit: z.array(kind) });

const schema = z.object({
  config: z.object({ edit_layer: z.int(), cross_att_head_n: z.int(), lora_scale: z.number() }),
  edits: z.array(z.object({ record: z.int(), prompt: z.string(), target: z.string(), image: z.string(), prompt_range: range })),
  queries: z.array(
    z.object({
      name: z.string(),
      prompt: z.string(),
      target: z.string(),
      image: z.string().nullable(),
      label_ids: z.array(z.int()),
      label_mask: numbers,
      retrieval: z.record(z.string(), retrieval),
    }),
  ),
  training: z.object({
    records: z.array(z.int()),
    expert_prefix: z.array(z.tuple([z.int(), z.int(), z.int()])),
    neighbour_pairs: pairs,
    prototype_pairs: pairs,
    optimizer: z.object({ lr: z.number() }),
    runs: z.object({
      once: z.object({
        loss: z.number(),
        parts: z.record(z.string(), z.number()),
        loss_after_step: z.number(),
        parts_after_step: z.record(z.string(), z.number()),
      }),
    }),
  }),
});

const groupOf: Record<z.output<typeof kind>, (typeof groups)[number]> = {
  reliability: 'reliability',
  text_rephrase: 'textGenerality',
  image_rephrase: 'modalGenerality',
  image_loc: 'modalLocality',
};

/** Parts of the reference's log by their names. */
const partOf: Record<string, readonly string[]> = {
  'Reliability loss': ['rel'],
  'Generality loss text_rephrase': ['textGen'],
  'Generality loss image_rephrase': ['modalGen'],
  'Locality loss image_loc': ['loc'],
  'MoE soft routing relative loss': ['softRelative'],
  'MoE soft routing abstract loss': ['softAbsolute'],
  'MoE soft routing loss': ['softRelative', 'softAbsolute'],
  'MoE hard routing neighbor loss': ['hardNeighbour'],
  'MoE hard routing prototype loss': ['hardPrototype'],
  'MoE hard routing loss': ['hardNeighbour', 'hardPrototype'],
};

/** As published with the fixture: 3 to 10 times what single precision makes of the reference's own values. */
const own = { hidden: 1e-3, keys: 2e-4, residual: 2e-3, routing: 1e-4, loss: 1e-4, gradient: 5e-3, after: 5e-4 } as const;

export async function checkLiveEdit(subject: Subject): Promise<void> {
  const { fixture, vlm, checks } = subject;
  const part = expectedPart(fixture, 'live-edit', schema);
  if (part === undefined) return;
  const { meta, need, names } = part;
  const weightNames = names.filter((name) => name.startsWith('weight.'));
  const weights: EditorWeights = {
    editor: liveEdit.id,
    model: modelId(vlm),
    settings: { layer: meta.config.edit_layer, heads: meta.config.cross_att_head_n, scale: meta.config.lora_scale },
    tensors: new Map(weightNames.map((name) => [name.slice('weight.'.length), need(name)])),
  };
  const shape = shapeOf(weights);
  const values = (check: string, tolerance: number, where: string, actual: ArrayLike<number>): void =>
    checks.values(`live-edit.${check}`, tolerance, where, actual, need(where).data);

  const requests = await Promise.all(meta.edits.map(async (edit) => ({ ...edit, image: await fixture.picture(edit.image) })));
  const edits = await liveEdit.edit(vlm, requests, weights);
  const stored = { eqr: 'prompt', evr: 'visual', moe_c: 'u', moe_r: 'v' };
  edits.forEach(({ tensors }, e) => {
    for (const [theirs, ours] of Object.entries(stored))
      values('stored', own.keys, `edit.${e}.${theirs}`, tensors.get(ours)!.data);
  });

  for (const query of meta.queries) {
    const { name, prompt, target, image, label_ids: labels, label_mask: mask } = query;
    const asked = { prompt, image: image === null ? undefined : await fixture.picture(image) };
    const batch = await batchOf(subject, asked, target);
    const length = batch.sequences[0]!.ids.length;
    const site = `layers.${meta.config.edit_layer}.out`;
    const rows = labels.map((_, i) => length - labels.length + i).filter((_, i) => mask[i] === 1);
    const n = vlm.decoder.vocabulary;
    const logitsOf = (all: Tensor<'float32'>, where: string, check: string): void => {
      const expected = need(where).data;
      rows.forEach((row) => {
        const at = row - (length - labels.length);
        checks.values(
          `live-edit.${check}`,
          tolerances.logits,
          where,
          all.data.subarray(row * n, (row + 1) * n),
          expected.subarray(at * n, (at + 1) * n),
        );
      });
    };
    logitsOf(await vlm.logits(batch), `${name}.logits.0`, 'logits-before');
    const { [site]: hidden } = await vlm.run({ from: 0, to: meta.config.edit_layer + 1, read: [site] }, batch);
    values('hidden', own.hidden, `${name}.hidden`, (hidden as Tensor<'float32'>).data);
    if (image === null) continue;
    const [keys] = await queryKeys(vlm, [vlm.layout(asked)], weights);
    values('query-keys', own.keys, `${name}.ivr`, keys!.visual);
    values('query-keys', own.keys, `${name}.iqr`, keys!.prompt);
    values('query-keys', own.keys, `${name}.ivr_prot`, keys!.sentinel);
    for (const [count, expected] of Object.entries(query.retrieval)) {
      const where = `${name}, ${count} stored`;
      const memory = edits.slice(0, Number(count));
      const found = new StoredKeys(vlm, memory);
      const [kept] = (await routes(found, [keys!], shape)) as [Routed[]];
      const scale = similarityScale(shape);
      const [close] = await found.products('visual', [keys!.visual]);
      const inOrder = memory.map((edit) => close![found.edits.indexOf(edit)]! * scale);
      const selected = [...kept].sort((a, b) => memory.indexOf(a.edit) - memory.indexOf(b.edit));
      checks.equal(
        'live-edit.selected',
        where,
        selected.map(({ edit }) => memory.indexOf(edit)),
        expected.selected,
      );
      const compare = (theirs: keyof z.output<typeof retrieval>, ours: readonly number[]): void =>
        checks.values('live-edit.routing', own.routing, `${where}, ${theirs}`, ours, [expected[theirs]].flat());
      compare('vis_sim', inOrder);
      compare('vis_sim_prot', [keys!.threshold]);
      compare(
        'relative',
        selected.map(({ relative }) => relative),
      );
      compare(
        'absolute',
        selected.map(({ absolute }) => absolute),
      );
      compare(
        'fuse',
        selected.map(({ weight }) => weight),
      );
      const rewrite = kept.length === 0 ? undefined : expertRewrite([kept], weights);
      if (rewrite !== undefined) {
        const { [site]: changed } = await vlm.run({ from: 0, to: meta.config.edit_layer + 1, read: [site] }, batch, {}, rewrite);
        const before = (hidden as Tensor<'float32'>).data;
        values(
          'residual',
          own.residual,
          `${name}.residual.${count}`,
          (changed as Tensor<'float32'>).data.map((x, i) => x - before[i]!),
        );
      }
      const after = await vlm.logits(batch, rewrite);
      logitsOf(after, `${name}.logits.${count}`, 'logits');
      if (names.includes(`${name}.logits_all.${count}`))
        values('logits', tolerances.logits, `${name}.logits_all.${count}`, after.data);
    }
  }
  await checkStep(subject, weights, meta.training, need, names);
}

async function checkStep(
  { fixture, vlm, checks }: Subject,
  weights: EditorWeights,
  training: z.output<typeof schema>['training'],
  need: (name: string) => Tensor<'float32'>,
  names: readonly string[],
): Promise<void> {
  const shape = shapeOf(weights);
  const layer = weights.settings.layer as number;
  const options = { layer, traced: [], draws: 1, sigma: 0, budget: 0 };
  const prepared = await new Preparer(vlm, fixture.records(), options, new Random(0)).get(training.records);
  const { expert_prefix, neighbour_pairs: neighbour, prototype_pairs: prototype } = training;
  const draws = expert_prefix.map(
    (experts, i): RecordDraw => ({
      experts,
      neighbour: { input: groupOf[neighbour.input[i]!], edit: groupOf[neighbour.edit[i]!] },
      prototype: { input: groupOf[prototype.input[i]!], edit: groupOf[prototype.edit[i]!] },
    }),
  );
  const feeds = liveEditFeeds(vlm, prepared, draws, shape.rank);
  const trainer = await Trainer.create({
    ...liveEditObjective(vlm, layer, shape),
    initial: weights.tensors,
    rule: () => ({ rule: 'adam' }),
    compile,
    options: { threads: vlm.compileOptions.threads, weights: vlm.weights },
  });
  try {
    const { lr } = training.optimizer;
    const { once } = training.runs;
    const compare = (
      where: string,
      out: { loss: number; metrics: Record<string, Tensor> },
      loss: number,
      parts: Record<string, number>,
    ) => {
      checks.relative('live-edit.loss', own.loss, where, out.loss, loss);
      for (const [name, wanted] of Object.entries(parts)) {
        const ours = partOf[name];
        if (ours === undefined) continue;
        const actual = ours.reduce((sum, metric) => sum + (out.metrics[metric]!.data as Float32Array)[0]!, 0);
        checks.relative('live-edit.loss-parts', own.loss, `${where}, ${name}`, actual, wanted);
      }
    };
    compare('the first step', await trainer.run(feeds, lr), once.loss, once.parts);
    const gradients = firstGradients(trainer.state());
    const after = new Map(trainer.weights);
    compare('after it', await trainer.run(feeds, 0), once.loss_after_step, once.parts_after_step);
    const tensors = (kindOf: 'grad' | 'after'): string[] => names.filter((name) => name.startsWith(`train.once.${kindOf}.`));
    // A softmax does not see what is added to all its scores: the gradient of the keys' bias is zero, and Adam turns its rounding into whole steps.
    const isKeyBias = (name: string): boolean => name.endsWith('k_mlp.bias');
    for (const where of tensors('grad')) {
      const name = where.slice('train.once.grad.'.length);
      const wanted = need(where).data;
      if (isKeyBias(name))
        checks.values('live-edit.zero-gradients', 1e-6, where, gradients.get(name)!, new Float32Array(wanted.length));
      else {
        const largest = wanted.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
        checks.values('live-edit.gradients', own.gradient, where, gradients.get(name)!, wanted, largest);
      }
    }
    for (const where of tensors('after').filter((name) => !isKeyBias(name)))
      checks.values(
        'live-edit.after-step',
        own.after,
        where,
        after.get(where.slice('train.once.after.'.length))!.data,
        need(where).data,
      );
  } finally {
    await trainer.release();
  }
}
