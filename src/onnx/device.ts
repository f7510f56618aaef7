/** What a device can do, as far as a program must know: the record that lowering and precision read. */

export type DeviceName = 'cpu' | 'cuda' | 'webgpu';

/** What a device computes in half precision, what it lacks, and its card. */
export interface Device {
  readonly name: DeviceName;
  /** products with frozen half-precision weights, and what follows from them, are computed in half precision */
  readonly half: boolean;
  /** it has half-precision numbers at all; otherwise weights become float32 when a program is opened */
  readonly float16: boolean;
  /** ONNX operators without a kernel there, or with one that takes many times as long as others that say the same; a lowering writes those */
  readonly lacks: ReadonlySet<string>;
  /** products and softmax take axes of length 0 */
  readonly emptyAxes: boolean;
  /** long causal attention goes in runs of positions, which leave out most of what is above the diagonal; copies cost more than that on a card with fast products */
  readonly causalRuns: boolean;
  /** greedy answers are one run, prompt and steps, whose keys and values stay there */
  readonly wholeAnswers: boolean;
  /** programs of a model are branches of one session, so that its memory holds each weight once; otherwise a session for each */
  readonly oneSession: boolean;
  /** optimizer steps of one run, between which weights and optimizer state stay there */
  readonly stepsPerRun: number;
  /** the card, where it has a name */
  readonly card?: { readonly name: string; readonly memory: number } | undefined;
}

/** One line per device. */
export const devices: Readonly<Record<DeviceName, Device>> = {
  cpu: {
    ...{ name: 'cpu', half: false, float16: true, lacks: new Set(), emptyAxes: true },
    ...{ causalRuns: true, wholeAnswers: false, oneSession: false, stepsPerRun: 1 },
  },
  // Pad of [4, 32, 577, 128] takes 2.4 ms on an H200, Concat of that size 0.14 ms.
  cuda: {
    ...{ name: 'cuda', half: true, float16: true, lacks: new Set(['Pad', 'MultiHeadAttention']), emptyAxes: true },
    ...{ causalRuns: false, wholeAnswers: true, oneSession: true, stepsPerRun: 4 },
  },
  // A product over an empty axis ends the process there.
  webgpu: {
    ...{ name: 'webgpu', half: true, float16: true, lacks: new Set(['FusedMatMul', 'MultiHeadAttention']), emptyAxes: false },
    ...{ causalRuns: true, wholeAnswers: false, oneSession: true, stepsPerRun: 4 },
  },
};
