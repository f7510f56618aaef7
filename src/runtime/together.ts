/**
 * Programs of one model as branches of one session, so that a device holds each weight once. A program joins when it first runs: the session is closed,
 * and opened again with it.
 */

import type { Tensor } from '../graph/dtype.ts';
import type { Node } from '../graph/node.ts';
import { type Branch, emitBranches, nameIn, placeholder, runsName } from '../onnx/branches.ts';
import { type Emitted, interfaceOf } from '../onnx/emit.ts';
import { DeviceError } from './card-memory.ts';
import { type Backend, type CompileOptions, Program, type Session } from './program.ts';

/** Programs of a session: those that ran last stay when there are more. */
const MOST = 8;

interface Member extends Branch {
  used: number;
}

interface Opened {
  readonly session: Session;
  readonly emitted: Emitted;
  readonly members: ReadonlySet<Member>;
}

const flag = (on: boolean): Tensor<'bool'> => ({ dtype: 'bool', shape: [], data: Uint8Array.of(on ? 1 : 0) });

/** The programs that are compiled with one `together` and the same other options. */
class Together {
  readonly #members = new Set<Member>();
  readonly #placeholders = new Map<string, Tensor>();
  readonly #backend: Backend;
  readonly #options: CompileOptions;
  #opened: Opened | undefined;
  /** the device has no room for several programs at once */
  #alone = false;
  #clock = 0;
  /** the last of the runs, which go one after the other */
  #last: Promise<unknown> = Promise.resolve();

  constructor(backend: Backend, options: CompileOptions) {
    this.#backend = backend;
    this.#options = options;
  }

  add(outputs: Readonly<Record<string, Node>>, options: CompileOptions): Program {
    const weights = options.weights ?? (() => undefined);
    const member: Member = { id: ++ids, outputs, weights, used: ++this.#clock };
    this.#members.add(member);
    const session: Session = {
      run: (feeds, only = Object.keys(outputs)) => this.#inTurn(() => this.#run(member, feeds, only)),
      release: () => this.#inTurn(() => this.#release(member)),
    };
    const declared = { ...interfaceOf(outputs, weights), checks: new Set<() => void>() };
    return new Program(declared, session, this.#backend.device, options);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    this.#placeholders.clear();
    await opened?.session.release();
  }

  async #release(member: Member): Promise<void> {
    this.#members.delete(member);
    if (this.#opened !== undefined && ![...this.#opened.members].some((one) => this.#members.has(one))) await this.#close();
  }

  async #session(member: Member): Promise<Opened> {
    if (this.#opened?.members.has(member)) return this.#opened;
    await this.#close();
    const latest = [...this.#members].sort((a, b) => b.used - a.used).slice(0, this.#alone ? 1 : MOST);
    const emitted = emitBranches(latest, this.#backend.device);
    for (const check of emitted.checks) check();
    const session = await this.#backend.open(emitted, this.#options);
    for (const [name, like] of emitted.inputs)
      this.#placeholders.set(name, like.dtype === 'bool' && like.shape.length === 0 ? flag(false) : placeholder(like));
    this.#opened = { session, emitted, members: new Set(latest) };
    return this.#opened;
  }

  /** Without memory for several programs each goes alone from then on. */
  async #run(member: Member, feeds: Record<string, Tensor>, only: readonly string[]): Promise<Record<string, Tensor>> {
    member.used = ++this.#clock;
    try {
      return await this.#runOnce(member, feeds, only);
    } catch (error) {
      if (!(error instanceof DeviceError && error.memory) || this.#alone || this.#members.size < 2) throw error;
      this.#alone = true;
      await this.#close();
      return this.#runOnce(member, feeds, only);
    }
  }

  async #runOnce(member: Member, feeds: Record<string, Tensor>, only: readonly string[]): Promise<Record<string, Tensor>> {
    const { session, emitted } = await this.#session(member);
    const { id } = member;
    const given: Record<string, Tensor> = {
      ...Object.fromEntries(this.#placeholders),
      ...Object.fromEntries(Object.entries(feeds).map(([name, t]) => [nameIn(id, name), t])),
      [runsName(id)]: flag(true),
    };
    for (const check of emitted.checks) check();
    const out = await session.run(
      given,
      only.map((name) => nameIn(id, name)),
    );
    for (const check of emitted.checks) check();
    return Object.fromEntries(only.map((name) => [name, out[nameIn(id, name)]!]));
  }
}

let ids = 0;

/** Compiles programs of one device into the sessions that they share. */
export function compilesTogether(
  backend: Backend,
): (outputs: Readonly<Record<string, Node>>, options: CompileOptions) => Program {
  const known = new WeakMap<object, Map<string, Together>>();
  return (outputs, options) => {
    const { together, weights: _, afterRun: __, ...rest } = options;
    const of = known.get(together!) ?? new Map<string, Together>();
    known.set(together!, of);
    const key = JSON.stringify(rest);
    const found = of.get(key) ?? new Together(backend, rest);
    of.set(key, found);
    return found.add(outputs, options);
  };
}
