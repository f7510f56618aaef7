/**
 * The contract of an editor as a suite: an edit is a value, a model is never changed, files keep everything, and what an editor promises beyond that holds.
 * Every editor of the registry passes it (conformance.test.ts), and so does one of your own.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { recipeOf } from '../../lab/recipes.ts';
import type { Edit, Editor, EditorWeights, EditRequest } from '../../src/editors/editor.ts';
import { readEdit, readEditorWeights, writeEdit, writeEditorWeights } from '../../src/editors/files.ts';
import { decodeImage } from '../../src/input/image/decode.ts';
import { type EditRecord, loadRecords } from '../../src/input/records.ts';
import { type AnsweringModel, type Query, unedited } from '../../src/models/answer.ts';
import { loadModel } from '../../src/models/load.ts';
import type { Vlm } from '../../src/models/vlm.ts';
import { writeRandomLlava } from '../tiny-model.ts';
import { temporaryFolder, writeTinyWorld } from '../tiny-world.ts';

/** A small random model, and edits of the mini world to make on it. */
export interface ContractWorld {
  readonly root: string;
  readonly vlm: Vlm;
  readonly records: EditRecord[];
  /** two of them, with targets of two words and of one */
  readonly requests: EditRequest[];
  /** the five queries of the first record */
  readonly queries: Query[];
}

const load = async ({ image, prompt, target }: { image: string | null; prompt: string; target: string }): Promise<Query> => ({
  image: image === null ? undefined : await decodeImage(image),
  prompt,
  target,
});

export async function openContractWorld(): Promise<ContractWorld> {
  const root = temporaryFolder();
  const vlm = loadModel(writeRandomLlava(join(root, 'model'), { positions: 512 }), { threads: 1 });
  const world = await writeTinyWorld(join(root, 'world'));
  const records = loadRecords(world.train, world.images);
  const [a, b] = [records[0]!, records[1]!];
  const requests = (await Promise.all([a, b].map((r) => load(r.request)))) as EditRequest[];
  return { root, vlm, records, requests, queries: await Promise.all(Object.values(a.queries).map(load)) };
}

export async function closeContractWorld({ root, vlm }: ContractWorld): Promise<void> {
  await vlm.release();
  rmSync(root, { recursive: true, force: true });
}

const difference = (a: number[][], b: number[][]): number => Math.max(...a.flat().map((x, i) => Math.abs(x - b.flat()[i]!)));

/** @param opened the world, once it is open */
export function editorContract(id: string, open: () => Promise<Editor>, opened: () => ContractWorld): void {
  describe(id, () => {
    let editor: Editor;
    let weights: EditorWeights | undefined;
    let edits: Edit[];
    let world: ContractWorld;
    const scores = async (model: AnsweringModel, asked: readonly Query[] = world.queries): Promise<number[][]> =>
      (await model.answerTargets(asked)).map(({ logProbs }) => [...logProbs]);

    beforeAll(async () => {
      world = opened();
      const { vlm, records, requests, root } = world;
      editor = await open();
      const recipe = recipeOf(vlm.decoder, id);
      if (editor.trained)
        weights = await editor.train!(vlm, records, {
          ...{ out: join(root, id), seed: 1, steps: 2, batch: 2, threads: 1 },
          settings: recipe.train,
        });
      edits = await editor.edit(vlm, requests, weights, recipe.edit);
    }, 60_000);

    test('an edit says what it is and for which model', () => {
      const { vlm, requests } = world;
      expect(editor.trained).toBe(editor.train !== undefined);
      expect(edits).toHaveLength(2);
      edits.forEach((edit, i) => {
        const { prompt, target } = requests[i]!;
        expect(edit).toMatchObject({ editor: id, model: { fingerprint: vlm.fingerprint }, request: { prompt, target } });
      });
    });

    test('an edit changes the answer; the model without it is bit-identical to before', async () => {
      const { vlm } = world;
      const before = await scores(unedited(vlm));
      const after = await scores(editor.with(vlm, [edits[0]!]));
      expect(difference(before.slice(0, 1), after.slice(0, 1))).toBeGreaterThan(1e-4);
      expect(await scores(unedited(vlm))).toEqual(before);
      expect(await scores(editor.with(vlm, [edits[0]!]))).toEqual(after);
    });

    test('edits and weights come back from their files with the same logits', async () => {
      const { vlm, requests, root } = world;
      const path = join(root, `${id}-edit.safetensors`);
      writeEdit(path, edits[0]!);
      expect(readEdit(path)).toEqual(edits[0]);
      expect(await scores(editor.with(vlm, [readEdit(path)]))).toEqual(await scores(editor.with(vlm, [edits[0]!])));
      if (weights === undefined) return;
      const weightsPath = join(root, `${id}-weights.safetensors`);
      writeEditorWeights(weightsPath, weights);
      const [again] = await editor.edit(
        vlm,
        requests.slice(0, 1),
        readEditorWeights(weightsPath),
        recipeOf(vlm.decoder, id).edit,
      );
      const [once] = await editor.edit(vlm, requests.slice(0, 1), weights, recipeOf(vlm.decoder, id).edit);
      expect(await scores(editor.with(vlm, [again!]))).toEqual(await scores(editor.with(vlm, [once!])));
    });

    test('a batch of two edits equals two singles, where that is promised', async () => {
      const { vlm, requests } = world;
      if (!editor.promises.batchEqualsSingles) return;
      for (const [i, request] of requests.entries()) {
        const [single] = await editor.edit(vlm, [request], weights, recipeOf(vlm.decoder, id).edit);
        const [alone, batched] = [await scores(editor.with(vlm, [single!])), await scores(editor.with(vlm, [edits[i]!]))];
        expect(difference(alone, batched)).toBeLessThan(1e-4);
      }
    });

    test('text-only queries get the same bits, alone and beside pictures, where that is promised', async () => {
      const { vlm, queries } = world;
      if (!editor.promises.textUntouched) return;
      const [picture, text] = [queries[0]!, queries[3]!];
      expect(text.image).toBeUndefined();
      const edited = editor.with(vlm, [edits[0]!]);
      const before = await unedited(vlm).answerTargets([text]);
      expect(await edited.answerTargets([text])).toEqual(before);
      expect((await edited.answerTargets([picture, text]))[1]).toEqual(before[0]);
      expect(await edited.generate([text], { maxNewTokens: 5 })).toEqual(
        await unedited(vlm).generate([text], { maxNewTokens: 5 }),
      );
    });

    test('with several edits, query i is answered under edit i', async () => {
      const { vlm, queries } = world;
      const asked = [queries[0]!, queries[0]!, queries[3]!, queries[4]!];
      const chain = [edits[0]!, edits[1]!, edits[1]!, edits[0]!];
      const together = editor.with(vlm, chain);
      const [scored, said] = [await scores(together, asked), await together.generate(asked, { maxNewTokens: 6 })];
      for (const [i, edit] of chain.entries()) {
        const alone = editor.with(vlm, [edit]);
        expect(difference(await scores(alone, [asked[i]!]), [scored[i]!])).toBeLessThan(1e-4);
        expect((await alone.generate([asked[i]!], { maxNewTokens: 6 }))[0]!.text).toBe(said[i]!.text);
      }
    });

    test('what is read for attribution says what is generated, for every edit that explains its answers', async () => {
      const { vlm, queries } = world;
      const edited = editor.with(vlm, [edits[0]!]);
      expect(edited.read !== undefined).toBe(editor.promises.explains !== false);
      for (const { image, prompt } of [queries[0]!, queries[3]!]) {
        const told: number[] = [];
        const logits: Float32Array[] = [];
        const [said] = await edited.generate([{ image, prompt }], {
          maxNewTokens: 4,
          eosIds: [],
          onToken: (index, id, scores) => {
            expect(index).toBe(0);
            told.push(id);
            logits.push(scores.slice());
            return told.length === 3;
          },
        });
        expect(said!.tokenIds).toEqual(told);
        expect(told.length).toBeLessThanOrEqual(3);
        if (edited.read === undefined) continue;
        for (const [at, scores] of logits.entries()) {
          const { batch, rewrite } = await edited.read({ image, prompt, answer: told.slice(0, at) });
          const all = await vlm.logits(batch, rewrite);
          const last = all.data.subarray(all.data.length - scores.length);
          expect(Math.max(...scores.map((x, i) => Math.abs(x - last[i]!)))).toBeLessThan(1e-3);
        }
      }
    });

    test('a stop between tokens ends the answer with its reason', async () => {
      const { vlm, queries } = world;
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
      await expect(asked).rejects.toThrow('nobody listens');
    });

    test('edits that combine act one after the other', async () => {
      const { vlm, requests, queries } = world;
      if (editor.chain === undefined) return;
      // Both requests are asked: an editor that retrieves the edit of each query gives a query what its own edit alone gives it.
      const asked = [...queries, requests[1]!];
      const alone = await Promise.all(edits.map((edit) => scores(editor.with(vlm, [edit]), asked)));
      expect(difference(await scores(editor.chain(vlm, [edits[0]!]), asked), alone[0]!)).toBeLessThan(1e-4);
      const both = await scores(editor.chain(vlm, edits), asked);
      for (const one of alone) expect(difference(both, one)).toBeGreaterThan(1e-4);
    });

    test('edits and weights for another model are refused, and so are empty prompts and targets', async () => {
      const { vlm, requests, root } = world;
      const other = loadModel(writeRandomLlava(join(root, 'other'), { positions: 512, seed: 'other' }), { threads: 1 });
      expect(() => editor.with(other, edits)).toThrow(/was made for model .*, not for other/);
      expect(() => editor.with(vlm, [])).toThrow('at least one edit');
      if (weights !== undefined)
        await expect(editor.edit(other, requests, weights)).rejects.toThrow(/made for model .*, not for other/);
      if (editor.trained) await expect(editor.edit(vlm, requests)).rejects.toThrow('visedit train');
      await expect(editor.edit(vlm, [{ ...requests[0]!, target: ' ' }], weights)).rejects.toThrow('the target is empty');
      await expect(editor.edit(vlm, [{ ...requests[0]!, prompt: '' }], weights)).rejects.toThrow('the prompt is empty');
      await other.release();
    });
  });
}
