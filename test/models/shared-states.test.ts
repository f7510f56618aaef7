/** Sharing states among queries changes nothing: against full forwards of every query by itself, on all three architectures. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeMini } from '../../lab/pretraining/finish.ts';
import { initialWeights } from '../../lab/pretraining/initial.ts';
import { minis } from '../../lab/pretraining/minis.ts';
import type { Edit } from '../../src/editors/editor.ts';
import { modelId } from '../../src/editors/editor.ts';
import { adapterShapes, initialAdapter } from '../../src/editors/vead/adapter.ts';
import { vead } from '../../src/editors/vead/vead.ts';
import { answerTargets, generateAll, type Query, unedited } from '../../src/models/answer.ts';
import { loadModel, weightShapes } from '../../src/models/load.ts';
import { chainRewrites } from '../../src/models/rewrite.ts';
import { groupRows, sharedStates } from '../../src/models/shared-states.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { Random } from '../../src/random.ts';
import { randomPicture } from '../tiny-model.ts';
import { temporaryFolder } from '../tiny-world.ts';

const root = temporaryFolder();
afterAll(() => rmSync(root, { recursive: true, force: true }));

test('rows with equal keys share their first row', () => {
  expect(groupRows(['a', 'b', 'a', 'c', 'b'])).toEqual({ first: [0, 1, 3], of: [0, 1, 0, 2, 1] });
});

describe.each(Object.keys(minis))('%s', (name) => {
  const layer = 2;
  let vlm: Vlm;
  let fresh: Vlm;
  let queries: Query[];
  let edits: Edit[];

  beforeAll(async () => {
    const mini = minis[name]!();
    const folder = join(root, name);
    writeMini(mini, initialWeights(weightShapes(mini.architecture), 3, mini.mimetic), folder, {});
    vlm = loadModel(folder, { threads: 1 });
    fresh = loadModel(folder, { threads: 1 });
    const [one, two] = ['one', 'two'].map((seed) => randomPicture(seed, 72));
    const prompts = [
      'What is at the top left? The answer is:',
      'Which thing is left of the cat? The answer is:',
      'Is there an owl?',
    ];
    queries = [
      { image: one, prompt: prompts[0]!, target: 'pizza' },
      { image: one, prompt: prompts[1]!, target: 'a pizza and an owl' },
      { image: two, prompt: prompts[0]!, target: 'pizza' },
      { prompt: prompts[2]!, target: 'no' },
      { image: two, prompt: prompts[2]!, target: 'yes' },
    ];
    const shape = { hidden: vlm.decoder.hidden, width: 32, heads: 4, influenceWidth: 16 };
    const tensors = initialAdapter(shape, new Random('adapter'));
    expect(adapterShapes(shape).size).toBe(tensors.size);
    const weights = { editor: 'vead', model: modelId(vlm), settings: { layer, heads: 4 }, tensors };
    const requests = [queries[0]!, queries[2]!].map(({ image, prompt, target }) => ({ image: image!, prompt, target }));
    edits = await vead.edit(vlm, requests, weights);
  });
  afterAll(() => Promise.all([vlm.release(), fresh.release()]));

  /** Every query alone, through whole forwards. */
  const alone = async (model: Vlm, rewriteOf?: (i: number) => Edit): Promise<number[][]> => {
    const out: number[][] = [];
    for (const [i, query] of queries.entries()) {
      const edited = rewriteOf === undefined ? undefined : vead.with(model, [rewriteOf(i)]);
      const answers = edited === undefined ? await answerTargets(model, [query]) : await edited.answerTargets([query]);
      out.push([...answers[0]!.logProbs]);
    }
    return out;
  };
  const worst = (a: number[][], b: number[][]): number => Math.max(...a.flat().map((x, i) => Math.abs(x - b.flat()[i]!)));

  test('unedited', async () => {
    const shared = (await unedited(vlm, layer).answerTargets(queries)).map(({ logProbs }) => [...logProbs]);
    expect(worst(shared, await alone(fresh))).toBeLessThan(2e-5);
    // A second time everything comes from what was kept: the same bits.
    const again = (await unedited(vlm, layer).answerTargets(queries)).map(({ logProbs }) => [...logProbs]);
    expect(again).toEqual(shared);
  });

  test('under edits: pictures are shared only under the same edit', async () => {
    const under = [edits[0]!, edits[0]!, edits[0]!, edits[0]!, edits[1]!];
    const shared = (await vead.with(vlm, under).answerTargets(queries)).map(({ logProbs }) => [...logProbs]);
    // Without sharing: the rewrite alone over whole inputs.
    const whole: number[][] = [];
    for (const [i, query] of queries.entries()) {
      const { veadRewrite } = await import('../../src/editors/vead/vead.ts');
      const answers = await answerTargets(fresh, [query], (_, batch) => (batch.image ? veadRewrite([under[i]!]) : undefined));
      whole.push([...answers[0]!.logProbs]);
    }
    expect(worst(shared, whole)).toBeLessThan(2e-5);
    const unchanged = (await unedited(vlm, layer).answerTargets(queries)).map(({ logProbs }) => [...logProbs]);
    expect(worst(shared.slice(0, 1), unchanged.slice(0, 1))).toBeGreaterThan(1e-4);
    expect(shared[3]).toEqual(unchanged[3]);
  });

  test('free answers are those of whole forwards, unedited and under edits', async () => {
    const { veadRewrite } = await import('../../src/editors/vead/vead.ts');
    const under = [edits[0]!, edits[0]!, edits[0]!, edits[0]!, edits[1]!];
    const options = { maxNewTokens: 6, eosIds: [] };
    const plain = (await unedited(vlm, layer).generate(queries, options)).map(({ tokenIds }) => tokenIds);
    const edited = (await vead.with(vlm, under).generate(queries, options)).map(({ tokenIds }) => tokenIds);
    for (const [i, query] of queries.entries()) {
      const whole = await generateAll(fresh, [query], options);
      expect(plain[i]).toEqual(whole[0]!.tokenIds);
      const wholeEdited = await generateAll(fresh, [query], options, (_, batch) =>
        batch.image ? veadRewrite([under[i]!]) : undefined,
      );
      expect(edited[i]).toEqual(wholeEdited[0]!.tokenIds);
    }
  });

  test('several edits at once: a chain shares pictures too', async () => {
    const chained = (await vead.chain!(vlm, edits).answerTargets(queries)).map(({ logProbs }) => [...logProbs]);
    const { veadRewrite } = await import('../../src/editors/vead/vead.ts');
    const whole: number[][] = [];
    for (const query of queries) {
      const answers = await answerTargets(fresh, [query], (_, batch) =>
        batch.image ? chainRewrites(edits.map((edit, i) => veadRewrite([edit], `${i}`))) : undefined,
      );
      whole.push([...answers[0]!.logProbs]);
    }
    expect(worst(chained, whole)).toBeLessThan(2e-5);
  });

  test('a signal is the layer of a whole forward', async () => {
    const { ids } = vlm.layout(queries[0]!, queries[0]!.target);
    const batch = await fresh.batch([fresh.layout(queries[0]!, queries[0]!.target)]);
    const site = `layers.${layer}.out`;
    const whole = (await fresh.run({ from: 0, to: layer + 1, read: [site] }, batch))[site]!.data as Float32Array;
    const signal = edits[0]!.tensors.get('signal')!;
    expect(signal.shape).toEqual([ids.length, vlm.decoder.hidden]);
    expect(Math.max(...signal.data.map((x, i) => Math.abs(x - whole[i]!)))).toBeLessThan(1e-4);
    expect(sharedStates(vlm, layer)).toBe(sharedStates(vlm, layer));
  });
});
