/** Attribution of one token to modules, layers and patches of the picture, under edits and without them. */

import { keyTokenId } from '../../../src/attribution/key-token.ts';
import { type ModuleContribution, moduleContribution } from '../../../src/attribution/module-contribution.ts';
import { seenPart } from '../../../src/attribution/on-pictures.ts';
import { patchMaps } from '../../../src/attribution/patch-attribution.ts';
import { checkLayer } from '../../../src/attribution/visual-attribution.ts';
import { type Asked, pictureCount } from '../../../src/input/segments.ts';
import { wordWarnings } from '../../../src/input/text/unknown-words.ts';
import type { AnsweringModel } from '../../../src/models/answer.ts';
import { layerSight } from '../../../src/models/sight.ts';
import type { Vlm } from '../../../src/models/vlm.ts';
import { Random } from '../../../src/random.ts';
import { ApiError, clientsFault } from '../errors.ts';
import { layoutOf, type Models } from './models.ts';
import { putQuestion } from './question.ts';
import { named } from './said.ts';
import type { Attribution, AttributionOrder, AttributionView, Progress } from './tasks.ts';
import type { Work } from './worker.ts';

export async function attribute(models: Models, order: AttributionOrder, work: Work<Progress>): Promise<Attribution> {
  const { under, prompt, image, answer, position, key } = order;
  const { vlm, asked } = await models.under(under);
  const layers = order.layers ?? Array.from({ length: vlm.decoder.layers }, (_, i) => i);
  await clientsFault('invalid_value', 'layers', () => {
    for (const layer of layers) checkLayer(vlm, layer);
  });
  const before = answer.slice(0, position);
  checkAnswer(vlm, answer);
  const { asked: question } = await clientsFault('invalid_prompt', 'prompt', () => putQuestion(vlm, { prompt, image }));
  const keyId = await clientsFault('invalid_value', 'key', () => keyOf(vlm, question, key, answer[position]));
  await layoutOf(vlm, 'prompt', question);
  const looked = { ...question, answer: before };
  const rounds = order.before && under.edits.length > 0 ? 2 : 1;
  const perRound = layers.length + 1;
  let done = 0;
  const step = (note: string): void => {
    work.signal.throwIfAborted();
    work.tell({ done: ++done, total: rounds * perRound, note });
  };
  const now = await view(vlm, asked, looked, { ...order, layers }, keyId, step, work.signal);
  const warnings = wordWarnings(vlm.codec, 'the prompt', prompt);
  if (rounds === 1) return { layers, ...now, warnings };
  const plain = (await models.under({ model: under.model, edits: [] })).asked;
  // The same key token, so that the two can be compared.
  return {
    layers,
    ...now,
    before: await view(vlm, plain, looked, { ...order, layers }, now.key.id, step, work.signal),
    warnings,
  };
}

/** @throws ApiError when the model has no such tokens */
export function checkAnswer(vlm: Vlm, answer: readonly number[]): void {
  const largest = vlm.decoder.vocabulary - 1;
  for (const [i, id] of answer.entries())
    if (id > largest)
      throw new ApiError(400, 'invalid_value', `there is no token ${id}; ids go up to ${largest}`, { param: `answer.${i}` });
}

/** The explained token: what is asked for, or what was answered. */
export function keyOf(
  vlm: Vlm,
  looked: Asked,
  key: string | number | undefined,
  answered: number | undefined,
): number | undefined {
  if (key === undefined) return answered;
  if (typeof key === 'string') return keyTokenId(vlm, looked, key);
  if (key >= vlm.decoder.vocabulary) throw new Error(`there is no token ${key}; ids go up to ${vlm.decoder.vocabulary - 1}`);
  return key;
}

async function view(
  vlm: Vlm,
  asked: AnsweringModel,
  looked: Asked & { answer: readonly number[] },
  {
    parts,
    layers,
    image,
    protocol,
    error,
    budget,
    draws,
    sigma,
    noiseAt,
    seed,
    top,
  }: AttributionOrder & { layers: readonly number[] },
  keyId: number | undefined,
  step: (note: string) => void,
  signal: AbortSignal,
): Promise<AttributionView> {
  if (asked.read === undefined)
    throw new ApiError(
      400,
      'attribution_unavailable',
      'edits of this editor act outside of what attribution looks at; ask for the unedited model, or use another editor',
      { param: 'model' },
    );
  const { batch, rewrite } = await clientsFault('prompt_too_long', 'answer', () => asked.read!(looked));
  const [found] = await moduleContribution(vlm, batch, [keyId], rewrite, parts.includes('lens') ? top : 1);
  step('modules');
  const { tokenId, prob, lens } = found!;
  const last = vlm.decoder.layers - 1;
  const visual = async (): Promise<AttributionView['visual']> => {
    if (pictureCount(looked) === 0) return undefined;
    const read = (other: Asked) => asked.read!({ ...other, answer: looked.answer });
    const { by, layers: maps } = await patchMaps(vlm, { asked: looked, reading: { batch, rewrite }, read }, layers, {
      ...{ protocol, error, budget, draws },
      ...(noiseAt === undefined ? {} : { noiseAt }),
      ...(sigma === undefined ? {} : { sigma }),
      // The noise of `visedit attribute visual` with the same seed.
      random: new Random(`${seed}/attribute visual`),
      signal,
      onLayer: (count) => step(`layer ${layers[count - 1]}`),
    });
    const { prepared } = batch.sequences[0]!.pictures[0]!;
    return {
      grid: prepared!.grid,
      seen: seenPart(prepared!, image!),
      protocol,
      noiseAt: noiseAt ?? (protocol === 'paper' ? 'hidden' : 'norm'),
      patchesBy: by,
      layers: maps.map(({ agreement, patches, patchErrors, ...map }) => {
        const sees = layerSight(vlm.decoder, map.layer);
        return { ...map, patches: patches[0]!.values, ...(sees === undefined ? {} : { sees }) };
      }),
    };
  };
  const map = parts.includes('visual') ? await visual() : undefined;
  const { text } = named(vlm, tokenId, 0);
  return {
    key: { id: tokenId, text, predicted: lens[last]!.rank === 0, probability: prob.layer[last]! },
    ...(parts.includes('modules') ? { modules: ofLayers(found!, layers) } : {}),
    ...(parts.includes('lens')
      ? {
          lens: layers.map((layer) => ({
            layer,
            keyProbability: prob.layer[layer]!,
            keyRank: lens[layer]!.rank,
            tokens: lens[layer]!.tokens.map(({ id, logProb }) => named(vlm, id, logProb)),
          })),
        }
      : {}),
    ...(map === undefined ? {} : { visual: map }),
  };
}

function ofLayers({ contribution, prob, logit }: ModuleContribution, layers: readonly number[]): AttributionView['modules'] {
  const of = (values: readonly number[]): number[] => layers.map((layer) => values[layer]!);
  return {
    contribution: { attn: of(contribution.attn), mlp: of(contribution.mlp) },
    prob: { attn: of(prob.attn), mlp: of(prob.mlp), layer: of(prob.layer) },
    logit: { attn: of(logit.attn), mlp: of(logit.mlp), layer: of(logit.layer) },
  };
}
