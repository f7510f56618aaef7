/** Several steps in one run are those of one step after the other, to the bit: weights, optimizer state, losses and what a resume goes on with. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { toFloat16 } from '../../src/files/half.ts';
import { add, exp, f32, input, matmul, mean, mul, parameter, square, sub, sum, type Tensor } from '../../src/graph/index.ts';
import { checkpointFile, logFile, Stopped, trainingLoop } from '../../src/nn/loop.ts';
import type { OptimizerRule } from '../../src/nn/optimizers.ts';
import { LossError, Trainer } from '../../src/nn/trainer.ts';
import { devices } from '../../src/onnx/device.ts';
import { Random } from '../../src/random.ts';
import { DeviceError } from '../../src/runtime/card-memory.ts';
import { compile, engineFor } from '../../src/runtime/node.ts';
import type { Program } from '../../src/runtime/program.ts';
import { temporaryFolder } from '../tiny-world.ts';

const root = temporaryFolder();
afterAll(() => rmSync(root, { recursive: true, force: true }));

const frozen = f32(new Random('frozen').normals(64, 0.3), [8, 8]);
const start = (): Map<string, Tensor<'float32'>> =>
  new Map([
    ['a', f32(new Random('a').normals(64, 0.3), [8, 8])],
    ['b', f32(new Random('b').normals(8, 0.3), [8])],
  ]);
/** Batches of any size; `scale` makes the loss overflow. */
const x = input('x', ['n', 8]);
const y = input('y', ['n', 8]);
const h = add(matmul(matmul(x, parameter('frozen', [8, 8])), parameter('a', [8, 8])), parameter('b', [8]));
const loss = mul(mean(square(sub(exp(mul(h, input('scale', []))), y))), 0.1);

const make = (stepsPerRun: number, rule: OptimizerRule['rule'], compiled = compile): Promise<Trainer> =>
  Trainer.create({
    ...{ loss, initial: start(), clip: 5, stepsPerRun, compile: compiled },
    metrics: { size: mean(square(h)), rows: sum(mean(square(x), 1)) },
    rule: (name) => ({ rule: name === 'a' ? rule : 'adam' }),
    options: { threads: 1, weights: (name) => (name === 'frozen' ? frozen : undefined) },
  });

const batchOf = (step: number, overflows = false): Record<string, Tensor> => {
  const random = new Random(`batch ${step}`);
  const n = 1 + random.int(5);
  const rows = (): Tensor<'float32'> => f32(random.normals(n * 8, 1), [n, 8]);
  return { x: rows(), y: rows(), scale: f32([overflows ? 1e30 : 1], []) };
};

const bytes = (trainer: Trainer): string =>
  [...trainer.state()]
    .map(([name, t]) => `${name} ${Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength).toString('base64')}`)
    .join('\n');

test('any steps in any runs leave the same bytes as one step after the other', async () => {
  const trainers = new Map<string, Trainer>();
  for (const rule of ['adam', 'sgd', 'muon'] as const)
    for (const count of [1, 3]) trainers.set(`${rule}${count}`, await make(count, rule));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('adam', 'sgd', 'muon'),
      fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 4 }),
      async (rule, runs) => {
        const [one, several] = [trainers.get(`${rule}1`)!, trainers.get(`${rule}3`)!];
        for (const trainer of [one, several]) {
          const zero = [...trainer.state()].map(
            ([name, t]) =>
              [
                name,
                f32(
                  start().get(name.slice(2))?.data && name.startsWith('w:')
                    ? start().get(name.slice(2))!.data
                    : new Float32Array(t.data.length),
                  t.shape,
                ),
              ] as const,
          );
          trainer.restore(0, new Map(zero));
        }
        for (const count of runs) {
          const asked = Array.from({ length: count }, (_, i) => ({ batch: batchOf(several.step + 1 + i), rate: 0.01 * (1 + i) }));
          const expected = [];
          for (const { batch, rate } of asked) expected.push(await one.run(batch, rate));
          expect(await several.runSteps(asked)).toEqual(expected);
          expect(bytes(several)).toBe(bytes(one));
        }
      },
    ),
    { numRuns: 15 },
  );
  for (const trainer of trainers.values()) await trainer.release();
});

test('a step whose loss is not finite changes nothing; those before it count, and the next run says what is wrong', async () => {
  const [one, several] = [await make(1, 'adam'), await make(4, 'adam')];
  const asked = [1, 2, 3, 4].map((step) => ({ batch: batchOf(step, step === 3), rate: 0.01 }));
  const results = await several.runSteps(asked);
  expect(results).toHaveLength(2);
  for (const { batch, rate } of asked.slice(0, 2)) await one.run(batch, rate);
  expect(bytes(several)).toBe(bytes(one));
  await expect(several.runSteps(asked.slice(2))).rejects.toThrow(LossError);
  await expect(several.runSteps(asked.slice(2))).rejects.toThrow('step 3: the loss is Infinity');
  expect(bytes(several)).toBe(bytes(one));
  await one.release();
  await several.release();
});

test('a training that stops between runs goes on to the same bytes', async () => {
  const run = async (name: string, stepsPerRun: number, more: { stopAfter?: number; resume?: boolean }): Promise<string> => {
    const trainer = await make(stepsPerRun, 'adam');
    const stop = new AbortController();
    const dir = join(root, name);
    try {
      await trainingLoop({
        ...{ trainer, steps: 11, rate: () => 0.01, feeds: (step) => batchOf(step), dir, every: 5, config: {} },
        ...{ signal: stop.signal, resume: more.resume === true },
        onStep: (step) => {
          if (step === more.stopAfter) stop.abort();
          return undefined;
        },
      });
    } finally {
      await trainer.release();
    }
    return bytes(trainer);
  };
  const expected = await run('one', 1, {});
  expect(await run('several', 4, {})).toBe(expected);
  expect(readFileSync(join(root, 'several', checkpointFile))).toEqual(readFileSync(join(root, 'one', checkpointFile)));
  const steps = (name: string): number[] =>
    readFileSync(join(root, name, logFile), 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { step: number }).step);
  expect(steps('several')).toEqual(steps('one'));
  for (const stopAfter of [2, 6, 9]) {
    await expect(run(`stopped ${stopAfter}`, 4, { stopAfter })).rejects.toThrow(Stopped);
    expect(await run(`stopped ${stopAfter}`, 4, { resume: true })).toBe(expected);
    // One by one from there, too.
    await expect(run(`moved ${stopAfter}`, 4, { stopAfter })).rejects.toThrow(Stopped);
    expect(await run(`moved ${stopAfter}`, 1, { resume: true })).toBe(expected);
  }
});

test('with frozen weights in half precision, too: what is trained stays float32', async () => {
  const half = engineFor({ ...devices.cpu, half: true });
  const stored = { ...frozen, dtype: 'float16' as const, data: toFloat16(frozen.data) };
  const through = matmul(add(matmul(x, parameter('a', [8, 8])), parameter('b', [8])), parameter('frozen', [8, 8]));
  const [one, several] = await Promise.all(
    [1, 3].map((stepsPerRun) =>
      Trainer.create({
        ...{ loss: sum(square(sub(through, y))), initial: start(), clip: 5, stepsPerRun, half: true, compile: half.compile },
        rule: () => ({ rule: 'adam' }),
        options: { threads: 1, weights: (name) => (name === 'frozen' ? stored : undefined) },
      }),
    ),
  );
  const asked = [1, 2, 3].map((step) => {
    const { scale: _, ...batch } = batchOf(step);
    return { batch, rate: 0.01 };
  });
  const expected = [];
  for (const { batch, rate } of asked) expected.push(await one!.run(batch, rate));
  expect(await several!.runSteps(asked)).toEqual(expected);
  expect(bytes(several!)).toBe(bytes(one!));
  await one!.release();
  await several!.release();
});

test('a device without memory for several batches takes one; one that fails leaves the steps before saved', async () => {
  let [runs, last] = [0, Number.POSITIVE_INFINITY];
  const failing = async (...given: Parameters<typeof compile>): Promise<Program> => {
    const program = await compile(...given);
    const run: Program['run'] = async (feeds) => {
      if (Number(feeds.turns!.data[0]) > 1) throw new DeviceError('cuda: no memory', true);
      if (++runs > last) throw new DeviceError('cuda: the card stopped answering', false);
      return program.run(feeds);
    };
    return { inputs: program.inputs, outputs: program.outputs, run, release: () => program.release() } as unknown as Program;
  };
  const dir = join(root, 'failing');
  const loop = (trainer: Trainer, resume: boolean) =>
    trainingLoop({ trainer, steps: 8, rate: () => 0.01, feeds: (step) => batchOf(step), dir, every: 100, config: {}, resume });
  const [one, several, again] = [await make(1, 'adam'), await make(4, 'adam', failing), await make(4, 'adam', failing)];
  last = 5;
  await expect(loop(several, false)).rejects.toThrow(
    'stopped answering. Step 5 is saved; run again with --resume to go on from it',
  );
  last = Number.POSITIVE_INFINITY;
  expect((await loop(again, true)).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  for (let step = 1; step <= 8; step++) await one.run(batchOf(step), 0.01);
  expect(bytes(again)).toBe(bytes(one));
  for (const trainer of [one, several, again]) await trainer.release();
});
