/** Backbones of the docs' tables: the minis, and the published ones by their shape alone, without weights. */
import type { Architecture } from '../../src/models/architecture.ts';
import { loadModel } from '../../src/models/load.ts';
import { Vlm } from '../../src/models/vlm.ts';
import { cpuEngine } from '../../src/runtime/node.ts';
import { shapes } from '../random-checkpoint.ts';

/** A model that can be asked for its sizes and for what editors take by default, and never run. */
export function sizesOnly(name: string, architecture: Architecture): Vlm {
  const none = (): never => {
    throw new Error(`${name} stands for its sizes and has no weights`);
  };
  return new Vlm({
    ...{ name, architecture, engine: cpuEngine, weights: none, codec: { encode: none, decode: none }, processor: none },
    ...{ eosIds: [], fingerprint: none },
  });
}

export const families = [
  { id: 'llava', mini: 'mini-llava', large: 'LLaVA-1.5 7B', shape: 'llava-1.5-7b' },
  { id: 'blip2-opt', mini: 'mini-blip2-opt', large: 'BLIP2-OPT 2.7B', shape: 'blip2-opt-2.7b' },
  { id: 'minigpt4', mini: 'mini-minigpt4', large: 'MiniGPT-4 7B', shape: 'minigpt4-7b' },
] as const;

export type Family = (typeof families)[number];

export const miniOf = ({ mini }: Family): Vlm => loadModel(mini);
export const largeOf = ({ large, shape }: Family): Vlm => sizesOnly(large, shapes[shape]().architecture);
