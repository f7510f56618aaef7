/** All commands, one line each; a file is loaded when its command is used. */
import { type CommandEntry, entry } from '../frame/command.ts';

export const commands: Record<string, CommandEntry> = {
  demo: entry('the tour: an answer, why, a correction, and what it changed', () => import('./demo.ts')),
  inspect: entry('tell what a model is', () => import('./inspect.ts')),
  generate: entry('answer a question, with corrections applied', () => import('./generate.ts')),
  trace: entry('write activations by site name', () => import('./trace.ts')),
  attribute: entry('show why: which layers and which parts of the picture', () => import('./attribute.ts')),
  conformance: entry('check this program against values of the reference implementations', () => import('./conformance.ts')),
  train: entry('train an editor on edits', () => import('./train.ts')),
  edit: entry('correct one answer and keep the correction as a file', () => import('./edit.ts')),
  evaluate: entry('measure an editor: reliability, generality, locality', () => import('./evaluate.ts')),
  reproduce: entry("the paper's tables and figures", () => import('./reproduce.ts')),
  devices: entry('tell where models can run here, and install what is missing', () => import('./devices.ts')),
  pull: entry('fetch a model from a hub', () => import('./pull.ts')),
  convert: entry('write any readable model as one safetensors folder', () => import('./convert.ts')),
  quantize: entry('write a model rounded to 4 or 8 bits', () => import('./quantize.ts')),
  studio: entry('a page to ask, see why, correct and compare', () => import('./studio.ts')),
  serve: entry('answer, correct and explain over HTTP, as OpenAI clients ask', () => import('./serve.ts')),
  world: entry('make the mini world, a data set that needs no download', () => import('./world.ts')),
};
