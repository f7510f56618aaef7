/** Programs that share a card's memory: real programs of the processor, with a limit on how many may be open at once. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { f32, input, mul } from '../../src/graph/index.ts';
import { devices } from '../../src/onnx/device.ts';
import { emit } from '../../src/onnx/emit.ts';
import { DeviceError, sharingMemory } from '../../src/runtime/card-memory.ts';
import { compile } from '../../src/runtime/node.ts';
import type { Session } from '../../src/runtime/program.ts';

const factors = [2, 3, 5, 7];
const graphs = factors.map((factor) => mul(input('x', ['n']), factor));
const emitted = graphs.map((y) => emit(new Map([['y', y]]), () => undefined, {}, devices.cpu));

/** Opens programs as long as fewer than `limit` are open. */
function limited(limit: number) {
  let open = 0;
  const opens = sharingMemory(async (one): Promise<Session> => {
    if (open >= limit) throw new DeviceError('no memory', true);
    open++;
    const program = await compile({ y: graphs[emitted.indexOf(one)]! }, { threads: 1 });
    return {
      run: (feeds, only) => program.run(feeds, only),
      release: async () => {
        open--;
        await program.release();
      },
    };
  });
  return { opens, open: () => open };
}

test('any order of runs gives each program its own results, within the limit; all memory is given back', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(fc.nat(3), { maxLength: 12 }), async (limit, order) => {
      const { opens, open } = limited(limit);
      const sessions: Session[] = [];
      for (const one of emitted) sessions.push(await opens(one, {}));
      for (const [i, which] of order.entries()) {
        const { y } = await sessions[which]!.run({ x: f32([i], [1]) });
        expect(y!.data[0]).toBe(factors[which]! * i);
        expect(open()).toBeLessThanOrEqual(limit);
      }
      for (const session of sessions) await session.release();
      expect(open()).toBe(0);
    }),
    { numRuns: 20 },
  );
});

test('what does not fit alone is an error, and so is every other failure', async () => {
  const { opens } = limited(0);
  await expect(opens(emitted[0]!, {})).rejects.toThrow('no memory');
  let tries = 0;
  const failing = sharingMemory(async () => {
    tries++;
    throw new DeviceError('the card stopped answering', false);
  });
  await expect(failing(emitted[0]!, {})).rejects.toThrow('stopped answering');
  expect(tries).toBe(1);
});
