/** The models that the engine has open, the weights of editors that fit them, and edited models that were asked lately. */

import { basename } from 'node:path';
import { editedModel } from '../../../src/editors/apply.ts';
import { checkModel, type Edit, type EditorWeights } from '../../../src/editors/editor.ts';
import { readEdit, readEditorWeights } from '../../../src/editors/files.ts';
import { allEditorIds, editorNamed } from '../../../src/editors/index.ts';
import { findShippedWeights } from '../../../src/editors/shipped.ts';
import { FileChanged } from '../../../src/files/changed.ts';
import type { Asked } from '../../../src/input/segments.ts';
import type { AnsweringModel } from '../../../src/models/answer.ts';
import { loadModel } from '../../../src/models/load.ts';
import type { Sequence } from '../../../src/models/sequence.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import type { Engine } from '../../../src/runtime/program.ts';
import { ApiError, clientsFault } from '../errors.ts';
import { chatFacts } from './chat-facts.ts';
import type { EditFile, EditorFacts, EngineOptions, Facts, ModelUnder } from './tasks.ts';

/** A map that forgets what was not used for longest. */
class Recent<T> {
  readonly #known = new Map<string, T>();
  constructor(readonly size: number) {}

  get(key: string, make: () => T): T {
    const value = this.#known.get(key) ?? make();
    this.#known.delete(key);
    this.#known.set(key, value);
    if (this.#known.size > this.size) this.#known.delete(this.#known.keys().next().value as string);
    return value;
  }

  delete(key: string): void {
    this.#known.delete(key);
  }
}

interface Weighed {
  readonly name: string;
  readonly editor: string;
  read(): EditorWeights;
}

export class Models {
  readonly #vlms = new Map<string, Vlm>();
  /** what each model was opened by, by the model's name */
  readonly #given = new Map<string, string>();
  readonly #weights = new Map<string, Weighed[]>();
  readonly #edits = new Recent<Edit>(256);
  readonly #asked = new Recent<Promise<AnsweringModel>>(32);

  /** @param behind wraps the engine of each model */
  constructor(
    readonly options: EngineOptions,
    behind: (engine: Engine) => Engine,
  ) {
    const { models, weights, threads, dtype, maxMemory, minPixels, maxPixels } = options;
    for (const given of models) {
      const vlm = loadModel(given, {
        ...{ dtype, maxMemory, minPixels, maxPixels, behind },
        ...(threads === undefined ? {} : { threads }),
      });
      if (this.#vlms.has(vlm.name)) throw new Error(`two models are called ${vlm.name}; serve one of them, or rename its folder`);
      this.#vlms.set(vlm.name, vlm);
      this.#given.set(vlm.name, given);
    }
    for (const path of weights) this.#add(path);
  }

  /** Weights from a file, for the model that they were trained for. */
  #add(path: string): void {
    const weights = readEditorWeights(path);
    const vlm = [...this.#vlms.values()].find(({ fingerprint }) => fingerprint === weights.model.fingerprint);
    if (vlm === undefined) throw new Error(`${path} was trained for ${weights.model.name}, which is not among the models served`);
    const name = basename(path, '.safetensors');
    const all = this.#weights.get(vlm.name) ?? [];
    if (all.some((one) => one.name === name && one.editor === weights.editor))
      throw new Error(`two files of ${weights.editor} weights for ${vlm.name} are called ${name}; rename one`);
    this.#weights.set(vlm.name, [...all, { name, editor: weights.editor, read: () => weights }]);
  }

  /** @throws ApiError 404 */
  vlm(model: string): Vlm {
    const vlm = this.#vlms.get(model);
    if (vlm === undefined)
      throw new ApiError(404, 'model_not_found', `there is no model ${JSON.stringify(model)}`, { param: 'model' });
    return vlm;
  }

  /** What can be used of an editor's weights with a model: those that come with it first. */
  #weightsOf(model: string, editor: string): Weighed[] {
    const shipped = (['vqa', 'caption'] as const).flatMap((name): Weighed[] => {
      const path = findShippedWeights(this.#given.get(model)!, editor, name);
      return path === undefined ? [] : [{ name, editor, read: () => readEditorWeights(path) }];
    });
    return [...shipped, ...(this.#weights.get(model) ?? []).filter((one) => one.editor === editor)];
  }

  /** @throws ApiError when the editor needs weights and has none of that name */
  async weights(model: string, editor: string, name: string | undefined): Promise<EditorWeights | undefined> {
    if (!(await editorNamed(editor)).trained) {
      if (name === undefined) return undefined;
      throw new ApiError(400, 'invalid_value', `the editor ${editor} learns nothing and takes no weights`, { param: 'weights' });
    }
    const all = this.#weightsOf(model, editor);
    const found = name === undefined ? all[0] : all.find((one) => one.name === name);
    if (found === undefined) {
      const there = all.length === 0 ? 'none' : all.map((one) => one.name).join(', ');
      throw new ApiError(
        400,
        'weights_not_found',
        `${editor} has no weights${name === undefined ? '' : ` ${JSON.stringify(name)}`} for ${model}; there are: ${there}. Train some with \`visedit train ${editor}\`, and start the server with --weights FILE`,
        { param: 'weights' },
      );
    }
    return found.read();
  }

  async facts(): Promise<Facts> {
    const models = [...this.#vlms.values()].map((vlm) => {
      const { name, fingerprint, decoder, architecture } = vlm;
      return {
        id: name,
        architecture: architecture.name,
        layers: decoder.layers,
        hidden: decoder.hidden,
        visualTokens: architecture.fixed?.count ?? null,
        patchGrid: architecture.fixed?.grid ?? null,
        imageSize: architecture.fixed?.size ?? null,
        vocabulary: decoder.vocabulary,
        maxPositions: decoder.maxPositions,
        fingerprint,
        bothWays: decoder.sight?.wholePictures ?? false,
        chat: chatFacts(vlm),
      };
    });
    const editors = allEditorIds().map(async (id): Promise<EditorFacts> => {
      const { summary, trained, chain, promises } = await editorNamed(id);
      const weights = models.flatMap((model) =>
        trained ? this.#weightsOf(model.id, id).map(({ name }) => ({ model: model.id, name })) : [],
      );
      return { id, summary, trained, combines: chain !== undefined, explains: promises.explains !== false, weights };
    });
    return { models, editors: await Promise.all(editors) };
  }

  /** An edit as its file has it, the same value each time. @throws ApiError when it was made for another model */
  edit(vlm: Vlm, { id, path }: EditFile): Promise<Edit> {
    const read = (): Edit => {
      const edit = this.#edits.get(id, () => readEdit(path));
      checkModel('this edit', edit.model, vlm);
      return edit;
    };
    return clientsFault('edit_not_usable', 'model', read, path);
  }

  /** The model under some edits. @throws ApiError 409 when they do not combine */
  async under({ model, edits }: ModelUnder): Promise<{ vlm: Vlm; asked: AnsweringModel }> {
    const vlm = this.vlm(model);
    const key = [model, ...edits.map(({ id }) => id)].join('|');
    const asked = this.#asked.get(key, async () => {
      const read = await Promise.all(edits.map((edit) => this.edit(vlm, edit)));
      return combined(vlm, read);
    });
    try {
      return { vlm, asked: await asked };
    } catch (error) {
      this.#asked.delete(key);
      throw error;
    }
  }

  /** Forgets what was computed of pictures. */
  forget(): void {
    for (const vlm of this.#vlms.values()) vlm.forget();
  }
}

/** A prompt as the model reads it. @throws ApiError 400 when it is too long, or has its picture where the model reads none */
export const layoutOf = (vlm: Vlm, param: string, asked: Asked, target?: string): Promise<Sequence> =>
  clientsFault('invalid_prompt', param, () => vlm.layout(asked, target));

/** @throws ApiError 409 */
export async function combined(vlm: Vlm, edits: readonly Edit[]): Promise<AnsweringModel> {
  try {
    return await editedModel(vlm, edits);
  } catch (error) {
    if (error instanceof FileChanged) throw error;
    throw new ApiError(409, 'edits_do_not_combine', (error as Error).message, { param: 'set', cause: error });
  }
}
