/**
 * Runs a chat template with the variables and functions that transformers gives it. A template comes with a model from anywhere, so
 * that its time, its work and with it the length of what it writes are limited.
 */

import { createContext, Script } from 'node:vm';
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import type { ChatTemplate } from './template.ts';

/** A message as templates know it. */
export interface TemplateMessage {
  readonly role: string;
  readonly content: string | readonly ({ readonly type: 'text'; readonly text: string } | { readonly type: 'image' })[];
}

export interface RenderOptions {
  /** ends the text where the assistant's answer begins */
  readonly addGenerationPrompt?: boolean;
  /** what `strftime_now` tells */
  readonly now?: Date;
  /** milliseconds */
  readonly timeLimit?: number;
}

/** Milliseconds. Published templates take less than ten. */
const TIME_LIMIT = 5000;
/** As Jinja's sandbox has it. */
const MAX_RANGE = 100_000;
/** Steps, with the characters and elements of the values that they make: so many, and so many more for each character of the messages. */
const WORK = 1e8;
const WORK_PER_CHARACTER = 1000;

// What is used of the library: its declarations cannot be resolved by Node's rules.
interface Value {
  readonly value: unknown;
}
interface Scope {
  set(name: string, value: unknown): void;
}
interface Interpreting {
  evaluate(node: unknown, scope: Scope): Value;
  run(program: object): Value;
}
const NewScope = Environment as unknown as new () => Scope;
const NewInterpreter = Interpreter as unknown as new (scope: Scope) => Interpreting;
const parseTemplate = (source: string): object => parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));

const programs = new WeakMap<ChatTemplate, object>();

/** @throws Error that names the template's file when it stops, loops or writes without end */
export function renderTemplate(
  template: ChatTemplate,
  messages: readonly TemplateMessage[],
  options: RenderOptions = {},
): string {
  const { addGenerationPrompt = true, now = new Date(), timeLimit = TIME_LIMIT } = options;
  const environment = new NewScope();
  const variables = {
    ...template.tokens,
    messages,
    tools: null,
    documents: null,
    add_generation_prompt: addGenerationPrompt,
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    range,
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    strftime_now: (format: string) => strftime(now, format),
  };
  for (const [name, value] of Object.entries(variables)) environment.set(name, value);
  const interpreter = new LimitedInterpreter(environment, WORK + WORK_PER_CHARACTER * JSON.stringify(messages).length);
  try {
    return within(timeLimit, () => String(interpreter.run(programOf(template)).value));
  } catch (error) {
    const { endless, what } = faultOf(error as Error, timeLimit);
    const message = `the chat template in ${template.origin} ${what}`;
    throw endless ? new EndlessTemplate(message, { cause: error }) : new Error(message, { cause: error });
  }
}

function programOf(template: ChatTemplate): object {
  let program = programs.get(template);
  if (program === undefined) {
    program = parseTemplate(template.source);
    programs.set(template, program);
  }
  return program;
}

/** A template met its limits. */
export class EndlessTemplate extends Error {}

class TooMuchWork extends Error {}

/** Counts what is computed, so that no value and no sum of values fills the memory. */
class LimitedInterpreter extends NewInterpreter {
  #left: number;

  constructor(scope: Scope, work: number) {
    super(scope);
    this.#left = work;
  }

  override evaluate(node: unknown, scope: Scope): Value {
    const result = super.evaluate(node, scope);
    const { value } = result;
    this.#left -= 1 + (typeof value === 'string' || Array.isArray(value) ? value.length : 0);
    if (this.#left < 0) throw new TooMuchWork();
    return result;
  }
}

/** Runs `work`, which waits for nothing, and ends it after a time: V8 stops whatever runs below a script with a time limit. */
function within<T>(milliseconds: number, work: () => T): T {
  return script.runInContext(Object.assign(sandbox, { work }), { timeout: milliseconds }) as T;
}
const script = new Script('work()');
/** Made once: it takes as long as a template. */
const sandbox = createContext({});

function faultOf(error: Error & { code?: unknown }, timeLimit: number): { endless: boolean; what: string } {
  if (error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT')
    return { endless: true, what: `did not end within ${timeLimit / 1000} seconds` };
  if (error instanceof TooMuchWork || error.message === 'Invalid string length')
    return { endless: true, what: 'writes or computes without end' };
  if (error instanceof RangeError) return { endless: true, what: 'calls itself without end' };
  return { endless: false, what: `stops with: ${error.message}` };
}

/** Python's range, with the limit of Jinja's sandbox. */
function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!(count <= MAX_RANGE)) throw new Error(`range(${start}, ${stop}, ${step}) is longer than ${MAX_RANGE}`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

/** Python's strftime in the C locale, in local time. */
export function strftime(date: Date, format: string): string {
  const named = (options: Intl.DateTimeFormatOptions): string => new Intl.DateTimeFormat('en-US', options).format(date);
  const two = (value: number): string => String(value).padStart(2, '0');
  const dayOfYear = (): number =>
    Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 0)) / 864e5);
  const codes: Readonly<Record<string, () => string>> = {
    Y: () => String(date.getFullYear()),
    y: () => two(date.getFullYear() % 100),
    m: () => two(date.getMonth() + 1),
    B: () => named({ month: 'long' }),
    b: () => named({ month: 'short' }),
    d: () => two(date.getDate()),
    A: () => named({ weekday: 'long' }),
    a: () => named({ weekday: 'short' }),
    j: () => String(dayOfYear()).padStart(3, '0'),
    H: () => two(date.getHours()),
    I: () => two(date.getHours() % 12 || 12),
    p: () => (date.getHours() < 12 ? 'AM' : 'PM'),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    '%': () => '%',
  };
  // A minus after the sign leaves out zeros at the front.
  return format.replace(/%(-?)(.)/gs, (written, minus: string, code: string) => {
    const write = codes[code];
    if (write === undefined) throw new Error(`strftime_now does not know ${written}`);
    return minus === '' ? write() : write().replace(/^0+(?=.)/, '');
  });
}
