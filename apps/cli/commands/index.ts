/** All commands, one line each; a file is loaded when its command is used. */
import { type CommandEntry, entry } from '../frame/command.ts';

export const commands: Record<string, CommandEntry> = {
  demo: entry(
    'take the tour: an answer, why it is given, a correction, and what the correction changed',
    () => import('./demo.ts'),
  ),
  inspect: entry('describe a model: architecture, sizes, weights', () => import('./inspect.ts')),
  generate: entry('answer a question, with edits applied', () => import('./generate.ts')),
  trace: entry('write activations to a file, by site name', () => import('./trace.ts')),
  attribute: entry('attribute an answer to layers and to parts of the picture', () => import('./attribute.ts')),
  conformance: entry('compare this program with the reference implementations', () => import('./conformance.ts')),
  train: entry('train an editor', () => import('./train.ts')),
  edit: entry('correct one answer, write the edit to a file, and check whether it took', () => import('./edit.ts')),
  edits: entry('keep edits in a folder with a history: add, test, undo, merge', () => import('./edits.ts')),
  evaluate: entry('measure an editor: reliability, generality, locality', () => import('./evaluate.ts')),
  reproduce: entry("make the paper's tables and figures", () => import('./reproduce.ts')),
  devices: entry('tell where models can run here, and install what is missing', () => import('./devices.ts')),
  pull: entry('fetch a model from a hub', () => import('./pull.ts')),
  convert: entry('write a model as one safetensors folder', () => import('./convert.ts')),
  quantize: entry('write a model rounded to 4 or 8 bits', () => import('./quantize.ts')),
  studio: entry('open the web app: ask, see why, correct, compare', () => import('./studio.ts')),
  serve: entry('serve models and edits over HTTP, for OpenAI clients', () => import('./serve.ts')),
  worker: entry('evaluate records that other machines hand out', () => import('./worker.ts')),
  world: entry('make the mini world, a data set that needs no download', () => import('./world.ts')),
};
