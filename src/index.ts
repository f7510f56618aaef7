/** The library: what the command line does, as typed functions. */

export { averageModuleContribution } from './attribution/dataset-average.ts';
export { type ModuleContribution, moduleContribution } from './attribution/module-contribution.ts';
export { type EditPlan, type PlanInput, planEdit } from './attribution/plan.ts';
export { toolNamed, tools } from './attribution/tools/index.ts';
export type { Found, Matrix, Subject, Tool, ToolRun } from './attribution/tools/tool.ts';
export { type VisualAttribution, type VisualAttributionOptions, visualAttribution } from './attribution/visual-attribution.ts';
export {
  checkEdits,
  checkModel,
  type Edit,
  type Editor,
  type EditorWeights,
  type EditRequest,
  type EditSequence,
  type ModelId,
  modelId,
  needWeights,
  type Promises,
  type Settings,
  type TrainOptions,
  type TrainProgress,
  wordsOf,
} from './editors/editor.ts';
export { readEdit, readEditorWeights, trainedWeights, writeEdit, writeEditorWeights } from './editors/files.ts';
export type { Form, Forms, Made, Shape } from './editors/forms.ts';
export { type Descent, descend } from './editors/gradients/descend.ts';
export { stateBefore, tailFeeds, tailLogits, targetLoss } from './editors/gradients/edit-loss.ts';
export { allEditorIds, editorIds, editorNamed, registerEditor } from './editors/index.ts';
export { findEditor } from './editors/outside.ts';
export * as settings from './editors/settings.ts';
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
export type { Message } from './input/chat/chat.ts';
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
export {
  type AnsweringModel,
  answerTargets,
  generateAll,
  type Query,
  type ReadInput,
  type Reading,
  readInput,
  type TargetAnswer,
  unedited,
} from './models/answer.ts';
export type {
  Architecture,
  Decoder,
  FixedPictures,
  KeysAndValues,
  LaidToken,
  LayerContext,
  PromptPart,
  TextCodec,
} from './models/architecture.ts';
export type { Batch } from './models/batch.ts';
export { barePrompt, conversation } from './models/chat.ts';
export { type ClipVisionConfig, clipVit, patchEmbedding } from './models/clip-vit.ts';
export { generate } from './models/generate.ts';
export { type DecoderNames, type LlamaConfig, llama } from './models/llama.ts';
export { builtInModels, loadModel, weightShapes } from './models/load.ts';
export { cellOf, fixedPixels, pieces } from './models/pictures.ts';
export { defineRewrite, type Rewrite } from './models/rewrite.ts';
export { prefixOf, type Sequence } from './models/sequence.ts';
export { type Patch, Sites } from './models/sites.ts';
export { Vlm, type VlmParts } from './models/vlm.ts';
export * as layers from './nn/layers.ts';
export { Weights } from './nn/weights.ts';
export type { Device } from './onnx/device.ts';
export { Random } from './random.ts';
export { compile, cpuEngine, type DeviceChoice, engineOn } from './runtime/node.ts';
export { type CompileOptions, type Engine, Program } from './runtime/program.ts';
export { type DeviceReport, tryDevice } from './runtime/try-device.ts';
