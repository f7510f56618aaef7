/**
 * The contract of an editor as checks: an edit is a value, a model is never changed, files keep everything, and what an editor promises beyond that
 * holds. Every editor of visedit passes them, and so does one from outside. Any test runner can run them: `for (const { name, run } of checks) test(name, run)`.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Edit, Editor, EditorWeights, EditRequest } from '../src/editors/editor.ts';
import { readEdit, readEditorWeights, writeEdit, writeEditorWeights } from '../src/editors/files.ts';
import { decodeImage } from '../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../src/input/records.ts';
import { type AnsweringModel, type Query, unedited } from '../src/models/answer.ts';
import { loadModel } from '../src/models/load.ts';
import type { Vlm } from '../src/models/vlm.ts';
import { recipeOf } from './recipes.ts';
import { buildWorld } from './world/build.ts';

/** A small model, and edits of the mini world to make on it. */
export interface ContractWorld {
  readonly root: string;
  readonly vlm: Vlm;
  /** of other weights */
  readonly other: Vlm;
  readonly records: EditRecord[];
  /** two of them, with targets of two words and of one */
  readonly requests: EditRequest[];
  /** the five queries of the first record */
  readonly queries: Query[];
}

/** One check of the contract. */
export interface ContractCheck {
  readonly name: string;
  /** @throws AssertionError when the contract is not kept */
  readonly run: () => Promise<void>;
}

const load = async ({ image, prompt, target }: { image: string | null; prompt: string; target: string }): Promise<Query> => ({
  image: image === null ? undefined : await decodeImage(image),
  prompt,
  target,
});

/**
 * Opens the models that edits are made on and refused by, and writes a part of the mini world to a temporary folder; `closeContractWorld` removes it.
 * @param models folders or built-in names
 */
export async function openContractWorld(models: { model?: string; other?: string } = {}): Promise<ContractWorld> {
  const { model = 'mini-llava', other = 'mini-minigpt4' } = models;
  const root = mkdtempSync(join(tmpdir(), 'visedit-contract-'));
  const [vlm, another] = [loadModel(model, { threads: 1 }), loadModel(other, { threads: 1 })];
  const out = join(root, 'world');
  await buildWorld({ seed: 'tiny', out, sizes: { vqaTrain: 12, vqaTest: 11, captionTrain: 0, captionTest: 0 } });
  const records = loadRecords(join(out, 'vqa_train.json'), join(out, 'images'));
  const [a, b] = [records[0]!, records[1]!];
  const requests = (await Promise.all([a, b].map((r) => load(r.request)))) as EditRequest[];
  return { root, vlm, other: another, records, requests, queries: await Promise.all(Object.values(a.queries).map(load)) };
}

/** Releases the models and removes the folder. */
export async function closeContractWorld({ root, vlm, other }: ContractWorld): Promise<void> {
  await vlm.release();
  await other.release();
  rmSync(root, { recursive: true, force: true });
}

const difference = (a: number[][], b: number[][]): number => Math.max(...a.flat().map((x, i) => Math.abs(x - b.flat()[i]!)));
const near = (a: number[][], b: number[][], what: string): void =>
  assert.ok(difference(a, b) < 1e-4, `${what}: log-probabilities differ by ${difference(a, b)}`);
const apart = (a: number[][], b: number[][], what: string): void =>
  assert.ok(difference(a, b) > 1e-4, `${what}: log-probabilities differ by ${difference(a, b)} only`);

/** The checks that an editor's promises ask for. Weights of an editor that is trained come from two steps, and edits are made when the first check runs. */
export function editorContract(editor: Editor, world: ContractWorld): ContractCheck[] {
  const { vlm, other, records, requests, queries, root } = world;
  const { id, promises } = editor;
  const recipe = recipeOf(vlm.decoder, id);
  const make = (some: readonly EditRequest[], weights?: EditorWeights): Promise<Edit[]> =>
    editor.edit(vlm, some, weights, recipe.edit);
  const prepare = async (): Promise<{ weights: EditorWeights | undefined; edits: Edit[] }> => {
    const options = { out: join(root, id), seed: 1, steps: 2, batch: 2, threads: 1, settings: recipe.train };
    const weights = editor.trained ? await editor.train!(vlm, records, options) : undefined;
    return { weights, edits: await make(requests, weights) };
  };
  let prepared: ReturnType<typeof prepare> | undefined;
  const ready = (): ReturnType<typeof prepare> => {
    prepared ??= prepare();
    return prepared;
  };
  const scores = async (model: AnsweringModel, asked: readonly Query[] = queries): Promise<number[][]> =>
    (await model.answerTargets(asked)).map(({ logProbs }) => [...logProbs]);
  const checks: ContractCheck[] = [];
  const check = (name: string, run: (made: { weights: EditorWeights | undefined; edits: Edit[] }) => Promise<void>): void => {
    checks.push({ name, run: async () => run(await ready()) });
  };

  check('an edit says what it is and for which model', async ({ edits }) => {
    assert.equal(editor.trained, editor.train !== undefined);
    assert.equal(edits.length, requests.length);
    edits.forEach(({ editor: by, model, request }, i) => {
      const { prompt, target } = requests[i]!;
      assert.deepEqual([by, model.fingerprint, request], [id, vlm.fingerprint, { prompt, target }]);
    });
  });

  check('an edit changes the answer; the model without it is bit-identical to before', async ({ edits }) => {
    const before = await scores(unedited(vlm));
    const after = await scores(editor.with(vlm, [edits[0]!]));
    apart(before.slice(0, 1), after.slice(0, 1), 'the edited question');
    assert.deepEqual(await scores(unedited(vlm)), before);
    assert.deepEqual(await scores(editor.with(vlm, [edits[0]!])), after);
  });

  check('edits and weights come back from their files with the same logits', async ({ edits, weights }) => {
    const path = join(root, `${id}-edit.safetensors`);
    writeEdit(path, edits[0]!);
    assert.deepEqual(readEdit(path), edits[0]);
    assert.deepEqual(await scores(editor.with(vlm, [readEdit(path)])), await scores(editor.with(vlm, [edits[0]!])));
    if (weights === undefined) return;
    const weightsPath = join(root, `${id}-weights.safetensors`);
    writeEditorWeights(weightsPath, weights);
    const [again] = await make(requests.slice(0, 1), readEditorWeights(weightsPath));
    const [once] = await make(requests.slice(0, 1), weights);
    assert.deepEqual(await scores(editor.with(vlm, [again!])), await scores(editor.with(vlm, [once!])));
  });

  if (promises.batchEqualsSingles)
    check('a batch of two edits equals two singles', async ({ edits, weights }) => {
      for (const [i, request] of requests.entries()) {
        const [single] = await make([request], weights);
        near(await scores(editor.with(vlm, [single!])), await scores(editor.with(vlm, [edits[i]!])), `edit ${i}`);
      }
    });

  if (promises.textUntouched)
    check('text-only queries get the same bits, alone and beside pictures', async ({ edits }) => {
      const [picture, text] = [queries[0]!, queries[3]!];
      assert.equal(text.image, undefined);
      const edited = editor.with(vlm, [edits[0]!]);
      const before = await unedited(vlm).answerTargets([text]);
      assert.deepEqual(await edited.answerTargets([text]), before);
      assert.deepEqual((await edited.answerTargets([picture, text]))[1], before[0]);
      const options = { maxNewTokens: 5 };
      assert.deepEqual(await edited.generate([text], options), await unedited(vlm).generate([text], options));
    });

  check('with several edits, query i is answered under edit i', async ({ edits }) => {
    const asked = [queries[0]!, queries[0]!, queries[3]!, queries[4]!];
    const chain = [edits[0]!, edits[1]!, edits[1]!, edits[0]!];
    const together = editor.with(vlm, chain);
    const [scored, said] = [await scores(together, asked), await together.generate(asked, { maxNewTokens: 6 })];
    for (const [i, edit] of chain.entries()) {
      const alone = editor.with(vlm, [edit]);
      near(await scores(alone, [asked[i]!]), [scored[i]!], `query ${i}`);
      assert.equal((await alone.generate([asked[i]!], { maxNewTokens: 6 }))[0]!.text, said[i]!.text);
    }
  });

  check('what is read for attribution says what is generated', async ({ edits }) => {
    const edited = editor.with(vlm, [edits[0]!]);
    assert.equal(edited.read !== undefined, promises.explains !== false);
    for (const { image, prompt } of [queries[0]!, queries[3]!]) {
      const told: number[] = [];
      const logits: Float32Array[] = [];
      const [said] = await edited.generate([{ image, prompt }], {
        maxNewTokens: 4,
        eosIds: [],
        onToken: (index, token, all) => {
          assert.equal(index, 0);
          told.push(token);
          logits.push(all.slice());
          return told.length === 3;
        },
      });
      assert.deepEqual(said!.tokenIds, told);
      assert.ok(told.length <= 3, 'onToken ends the answer');
      if (edited.read === undefined) continue;
      for (const [at, generated] of logits.entries()) {
        const { batch, rewrite } = await edited.read({ image, prompt, answer: told.slice(0, at) });
        const all = await vlm.logits(batch, rewrite);
        const last = all.data.subarray(all.data.length - generated.length);
        const most = Math.max(...generated.map((x, i) => Math.abs(x - last[i]!)));
        assert.ok(most < 1e-3, `logits of token ${at} differ by ${most}`);
      }
    }
  });

  check('a stop between tokens ends the answer with its reason', async ({ edits }) => {
    const stop = new AbortController();
    const asked = editor.with(vlm, [edits[0]!]).generate([queries[0]!], {
      maxNewTokens: 8,
      eosIds: [],
      signal: stop.signal,
      onToken: () => {
        stop.abort(new Error('nobody listens'));
        return false;
      },
    });
    await assert.rejects(asked, /nobody listens/);
  });

  if (editor.chain !== undefined)
    check('edits that combine act one after the other', async ({ edits }) => {
      // Both requests are asked: an editor that retrieves the edit of each query gives a query what its own edit alone gives it.
      const asked = [...queries, requests[1]!];
      const alone = await Promise.all(edits.map((edit) => scores(editor.with(vlm, [edit]), asked)));
      near(await scores(editor.chain!(vlm, [edits[0]!]), asked), alone[0]!, 'a chain of one edit');
      const both = await scores(editor.chain!(vlm, edits), asked);
      for (const one of alone) apart(both, one, 'a chain of two edits against one of them');
    });

  if (editor.sequence !== undefined)
    check('a sequence goes on from the edits that it is given', async ({ weights }) => {
      const next = editor.sequence!(vlm, weights, recipe.edit);
      const [first, second] = [await next(requests[0]!), await next(requests[1]!)];
      const again = await editor.sequence!(vlm, weights, recipe.edit, [first])(requests[1]!);
      const asked = [...queries, requests[1]!];
      near(await scores(editor.with(vlm, [again]), asked), await scores(editor.with(vlm, [second]), asked), 'the second edit');
    });

  check('edits and weights for another model are refused, and so are empty prompts and targets', async ({ edits, weights }) => {
    assert.throws(() => editor.with(other, edits), /was made for .*, not for /);
    assert.throws(() => editor.with(vlm, []), /at least one edit/);
    if (weights !== undefined) await assert.rejects(editor.edit(other, requests, weights), /made for .*, not for /);
    if (editor.trained) await assert.rejects(editor.edit(vlm, requests), /visedit train/);
    await assert.rejects(editor.edit(vlm, [{ ...requests[0]!, target: ' ' }], weights), /the target is empty/);
    await assert.rejects(editor.edit(vlm, [{ ...requests[0]!, prompt: '' }], weights), /the prompt is empty/);
  });
  return checks;
}
