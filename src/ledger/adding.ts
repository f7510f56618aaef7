/** Adding an edit to a set: contradictions are found first, then it is made on the model under the set's edits, checked and stored. */

import { editedModel } from '../editors/apply.ts';
import type { Edit, Editor, EditorWeights, EditSequence, Settings } from '../editors/editor.ts';
import { writeEdit } from '../editors/files.ts';
import { editorNamed } from '../editors/index.ts';
import { askCard, type CheckOptions, cardOf, type EditCheck } from '../evaluation/scope-card.ts';
import { encodePng } from '../figures/png.ts';
import type { RgbImage } from '../input/segments.ts';
import { wordWarnings } from '../input/text/unknown-words.ts';
import { unedited } from '../models/answer.ts';
import type { Vlm } from '../models/vlm.ts';
import type { StoredEdit } from './changes.ts';
import { type Claim, type Conflict, claimOf, conflictsOf, pictureKey, storedClaim } from './conflicts.ts';
import type { Ledger } from './ledger.ts';
import { type CardQuestions, cardQuestions } from './scope.ts';

/** A correction as it is to be stored, and what its scope card asks with. */
export interface Correction {
  /** undefined: an edit from a file whose picture is not known */
  readonly picture: RgbImage | undefined;
  readonly prompt: string;
  readonly target: string;
  readonly rephrasings?: readonly string[];
  readonly samePictures?: readonly RgbImage[];
  readonly otherPictures?: readonly RgbImage[];
  readonly note?: string | undefined;
}

/** How its edit is made: by an editor, or it is there. */
export type Maker = ByEditor | { readonly edit: Edit };

export interface ByEditor {
  readonly editor: Editor;
  readonly weights: EditorWeights | undefined;
  /** what the weights are called */
  readonly weightsName: string | null;
  readonly settings: Settings;
}

/** A set that edits are added to one by one. */
export class Additions {
  /** of the set, on or off: a new one must combine with all of them */
  readonly #members: Map<string, Edit>;
  readonly #claims: Claim[] = [];
  /** makes the next edit on the model under those that are on; forgotten when what it made was not stored */
  #next: EditSequence | undefined;

  private constructor(
    readonly vlm: Vlm,
    readonly ledger: Ledger,
    /** of the set */
    readonly name: string,
    readonly editor: string,
  ) {
    this.#members = new Map(ledger.beside(vlm.name, name, editor).map(({ id }) => [id, ledger.read(id)]));
  }

  /** @throws LedgerError when the set holds edits of another editor */
  static async to(vlm: Vlm, ledger: Ledger, name: string, editor: string): Promise<Additions> {
    const additions = new Additions(vlm, ledger, name, editor);
    for (const edit of additions.stored) additions.#claims.push(await storedClaim(ledger, edit));
    return additions;
  }

  /** The set's edits that are on. */
  get stored(): readonly StoredEdit[] {
    const set = this.ledger.findSet(this.vlm.name, this.name);
    return set === undefined ? [] : this.ledger.active(set);
  }

  get edits(): readonly Edit[] {
    return this.stored.map(({ id }) => this.#members.get(id)!);
  }

  /** Edits of the set about the same question on the same picture. */
  conflicts(correction: Correction): Conflict[] {
    const claim = this.#claim('new', correction);
    return conflictsOf([...this.#claims, claim], claim);
  }

  #claim(id: string, { prompt, target, rephrasings = [], picture }: Correction): Claim {
    const given = { rephrasings: [...rephrasings], samePictures: 0, otherPictures: 0 };
    return claimOf({ id, prompt, target, given }, picture && pictureKey(picture));
  }

  /**
   * @param maker the same in all calls
   * @throws Error when the question does not fit the model, or the edit does not combine with the others; nothing is stored then
   */
  async add(correction: Correction, maker: Maker, options: CheckOptions = {}): Promise<StoredEdit> {
    const { vlm, ledger, name } = this;
    const { picture, prompt, target, rephrasings = [], samePictures = [], otherPictures = [], note } = correction;
    const questions = picture && cardQuestions(vlm, { prompt, target, picture }, { rephrasings, samePictures, otherPictures });
    const edit = 'edit' in maker ? maker.edit : await this.#make(maker, questions!);
    const next = this.#next;
    this.#next = undefined;
    const editor = await editorNamed(edit.editor);
    if (this.#members.size > 0) await editedModel(vlm, [...this.#members.values(), edit]);
    const alone = editor.with(vlm, [edit]);
    const check = questions && (await checkAlone(vlm, alone, questions, options));
    options.signal?.throwIfAborted();
    const png = ({ width, height, data }: RgbImage): Promise<Uint8Array> => encodePng(width, height, data);
    const all = (pictures: readonly RgbImage[]): Promise<Uint8Array[]> => Promise.all(pictures.map(png));
    const [own, same, other] = [picture && (await png(picture)), await all(samePictures), await all(otherPictures)];
    const id = ledger.newId();
    writeEdit(ledger.path(id), edit);
    const stored = ledger.add(
      {
        ...{ id, model: vlm.name, fingerprint: vlm.fingerprint, set: name, editor: edit.editor },
        weights: 'edit' in maker ? null : maker.weightsName,
        ...{ prompt, target, note: note ?? null, check: check ?? null },
        warnings: [...wordWarnings(vlm.codec, 'the prompt', prompt), ...wordWarnings(vlm.codec, 'the target', target)],
        given: { rephrasings: [...rephrasings], samePictures: same.length, otherPictures: other.length },
      },
      own,
      { same, other },
    );
    this.#members.set(id, edit);
    this.#claims.push(this.#claim(id, correction));
    if (!('edit' in maker)) this.#next = next;
    return stored;
  }

  /** An edit that stays is made on the model under those before it, where its editor can. */
  async #make({ editor, weights, settings }: ByEditor, { request }: CardQuestions): Promise<Edit> {
    const { vlm, edits } = this;
    if (editor.sequence !== undefined) {
      this.#next ??= editor.sequence(vlm, weights, settings, edits);
      return this.#next(request);
    }
    const [edit] = await editor.edit(vlm, [request], weights, settings);
    return edit!;
  }
}

async function checkAlone(
  vlm: Vlm,
  alone: ReturnType<Editor['with']>,
  { request, probes }: CardQuestions,
  options: CheckOptions,
): Promise<EditCheck> {
  const before = await askCard(unedited(vlm), request, probes, options);
  return cardOf(request, probes, before, await askCard(alone, request, probes, options));
}
