/** The library: what the command line does, as typed functions. */

export { averageModuleContribution } from './attribution/dataset-average.ts';
export { type ModuleContribution, moduleContribution } from './attribution/module-contribution.ts';
export { type VisualAttributionOptions, visualAttribution } from './attribution/visual-attribution.ts';
export type { Edit, Editor, EditorWeights, EditRequest, TrainOptions } from './editors/editor.ts';
export { readEdit, readEditorWeights, writeEdit, writeEditorWeights } from './editors/files.ts';
export { editorIds, editorNamed } from './editors/index.ts';
export { shippedWeights } from './editors/shipped.ts';
export { evaluateRecords } from './evaluation/asking.ts';
export type { Evaluation, FiveMetrics } from './evaluation/metrics.ts';
export { type GivenProbes, type Probe, probesOf } from './evaluation/probes.ts';
export { runEvaluation } from './evaluation/runner.ts';
export { type CardEntry, checkEdit, type EditCheck } from './evaluation/scope-card.ts';
export { trainEditor } from './evaluation/training.ts';
export * as figures from './figures/index.ts';
export { openCheckpoint } from './files/folder.ts';
export { openSafetensors, writeSafetensors } from './files/safetensors.ts';
export * as graph from './graph/index.ts';
export { decodeImage } from './input/image/decode.ts';
export {
  type EditRecord,
  loadRecords,
  openRecords,
  type QueryKind,
  queryKinds,
  type RecordChoice,
  type RecordFile,
} from './input/records.ts';
export type { Asked, Picture, PreparedPicture, Prompt, RgbImage, Segment } from './input/segments.ts';
export { type AnsweringModel, type Query, unedited } from './models/answer.ts';
export type { Architecture, Decoder } from './models/architecture.ts';
export type { Batch } from './models/batch.ts';
export { generate } from './models/generate.ts';
export { builtInModels, loadModel } from './models/load.ts';
export type { Rewrite } from './models/rewrite.ts';
export type { Sequence } from './models/sequence.ts';
export type { Vlm } from './models/vlm.ts';
export { Random } from './random.ts';
export { compile } from './runtime/node.ts';
export { Program } from './runtime/program.ts';
