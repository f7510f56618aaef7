/** The stages in which a mini's decoder and connector learn: what each asks for, how much and how fast. */

import type { LessonKind } from '../world/lessons.ts';

export interface DecoderStage {
  steps: number;
  scenes: number;
  lessons: number;
  /** lessons of each scene that are drills */
  drills: number;
  facts: number;
  rate: number;
  muonRate: number;
  decay: number;
  /** weight of the patch-to-word loss */
  patchWord: number;
  /** share of the cell's place and the background's colour in that loss */
  attributes: number;
  /**
   * weight of the lens loss: after each of the first three layers, an answer word still says itself and a visual token its cell through the
   * final norm and the vocabulary matrix
   */
  lens: number;
  /**
   * share of the scenes whose text sees another scene's picture up to layer `rereadAfter` and its own from there on. The answer is about its own:
   * so pictures are read in the later layers, as published models read them, and what an editor writes after that layer is what is answered.
   */
  reread: number;
  rereadAfter: number;
  /** weight of the answers' loss read off layer `rereadAfter` already, where text and picture agree: the prompt's end knows what the picture shows */
  early: number;
  /** fraction of the steps at the full rate; then linearly to 0 */
  hold: number;
  /** share of the count lessons that ask for a thing that is there more than once, where there is one */
  doubles: number;
  /** relative frequency of lesson kinds */
  lessonWeights: Partial<Record<Exclude<LessonKind, 'fact' | 'pair'>, number>>;
  /** questions about each scene and the next one as two pictures; absent: one picture stands in every input */
  pairs?: number;
  /** share of them about backgrounds; absent: 0.25 */
  pairBackgrounds?: number;
  /** weight of a loss that asks the visual tokens, after the layers before `rereadAfter` and it, which of two pictures they are of */
  order?: number;
  /** steps to the full rate; absent: 100 */
  warmup?: number;
}

export const decoderStage: DecoderStage = {
  steps: 2400,
  scenes: 16,
  lessons: 8,
  drills: 1,
  facts: 2,
  rate: 3e-3,
  muonRate: 0.02,
  decay: 0.05,
  patchWord: 0.3,
  attributes: 0,
  lens: 0,
  reread: 0,
  rereadAfter: 2,
  early: 0,
  hold: 0.6,
  doubles: 0,
  lessonWeights: {
    place: 1,
    relation: 1.6,
    where: 1.3,
    count: 1.6,
    exists: 1.2,
    background: 0.9,
    category: 1.2,
    kind: 1,
    caption: 0.8,
    list: 0.4,
    probe: 0.4,
    tally: 0.4,
    find: 0.4,
    sides: 0.3,
    kinds: 0.1,
    groups: 0.1,
  },
};

/**
 * Stage 3: gentler, and visual tokens also say where they are and on what colour, so that "where" and "background" are read off them as
 * names are. From the start this would hide the names from the matching.
 */
export const refineStage: DecoderStage = {
  ...decoderStage,
  steps: 900,
  rate: 2e-3,
  muonRate: 0.01,
  attributes: 0.3,
  hold: 0.3,
  lessonWeights: { ...decoderStage.lessonWeights, where: 2.2, background: 1.6, count: 1.8, caption: 1.4, relation: 2, find: 0.6 },
};

/**
 * Stage 4: words and visual tokens are brought into one space in the first layers, too, so that an editor that copies a word's state into the
 * picture writes what the decoder reads as that thing, for words that its training never asked for. The kinds that come last get most lessons.
 */
export const alignStage: DecoderStage = {
  ...refineStage,
  steps: 700,
  rate: 2.5e-3,
  muonRate: 0.015,
  facts: 3,
  lens: 0.3,
  hold: 0.4,
  lessonWeights: {
    ...{ place: 0.7, relation: 3.5, where: 4, count: 2.5, exists: 0.8, background: 0.7, category: 0.7, kind: 0.5, caption: 1 },
    ...{ list: 0.3, probe: 0.3, tally: 0.5, find: 0.8, sides: 0.8, kinds: 0.2, groups: 0.2 },
  },
};

/** Stage 5: the rate goes to 0 over the kinds that are still unsure: relations, counts, captions. */
export const polishStage: DecoderStage = {
  ...alignStage,
  steps: 600,
  rate: 2e-3,
  muonRate: 0.012,
  hold: 0.15,
  lessonWeights: {
    ...{ place: 1, relation: 4, where: 1.5, count: 4, exists: 1.2, background: 0.8, category: 1.2, kind: 1.2, caption: 2.5 },
    ...{ list: 0.3, probe: 0.3, tally: 0.8, find: 0.5, sides: 1, kinds: 0.3, groups: 0.2 },
  },
};

/**
 * Pictures are read in the later layers: half of the scenes' text begins behind another picture, so that only what the layers after the third see
 * decides the answer; the prompt's end knows what the picture shows by then.
 */
export const rereadStage: DecoderStage = {
  ...alignStage,
  steps: 900,
  rate: 2e-3,
  muonRate: 0.01,
  facts: 2,
  reread: 0.5,
  early: 0.3,
  hold: 0.5,
  lessonWeights: {
    ...{ place: 1, relation: 2.5, where: 2.5, count: 3, exists: 2, background: 1, category: 1.2, kind: 1, caption: 1.5 },
    ...{ list: 0.4, probe: 1, tally: 0.8, find: 0.8, sides: 0.6, kinds: 0.2, groups: 0.2 },
  },
};

/** The rate goes to 0 over all kinds. Two of a thing are asked for as often as one: attention averages, so that counting comes last. */
export const settleStage: DecoderStage = {
  ...rereadStage,
  steps: 600,
  hold: 0.2,
  doubles: 0.5,
  lessonWeights: {
    ...{ place: 1, relation: 2, where: 1, count: 6, exists: 1.5, background: 1, category: 1, kind: 1, caption: 2.5 },
    ...{ list: 0.4, probe: 0.4, tally: 2, find: 0.4, sides: 0.6, kinds: 0.2, groups: 0.2 },
  },
};

/** A last round in which every third lesson counts. */
export const countStage: DecoderStage = {
  ...settleStage,
  steps: 500,
  doubles: 0.6,
  lessonWeights: { ...settleStage.lessonWeights, relation: 2.5, exists: 2, count: 10, tally: 3 },
};

/** A last round in which every third lesson is about what stands beside what. */
export const relateStage: DecoderStage = {
  ...settleStage,
  steps: 450,
  hold: 0.1,
  lessonWeights: { ...settleStage.lessonWeights, relation: 9, count: 5, sides: 2, tally: 1.2 },
};
