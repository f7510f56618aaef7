/**
 * Python's pickle format, restricted to what files of tensors need. There is no code to run here: an operation makes plain data, and
 * the few named constructors make inert values of this file. Everything else is refused by its name and offset. (Opcodes: Python's
 * pickletools.py; torch's own restricted reader allows about the same.)
 */

/** A file of tensors describes them in kilobytes. */
export const MAX_PICKLE = 64 * 1024 * 1024;
const MAX_STRING = 64 * 1024;
const MAX_GLOBAL = 256;
const MAX_MEMO = 1_000_000;
const MAX_STACK = 100_000;
const MAX_MARKS = 256;
const PROTOCOLS = 5;

export interface PickleTuple {
  readonly kind: 'tuple';
  readonly items: readonly Pickled[];
}
export interface PickleDict {
  readonly kind: 'dict';
  readonly entries: Map<Pickled, Pickled>;
}
export interface PickleList {
  readonly kind: 'list';
  readonly items: Pickled[];
}
/** A type that the file names, such as torch.HalfStorage. */
export interface PickleGlobal {
  readonly kind: 'global';
  readonly name: string;
}
/** What a file names by a tuple instead of writing it here: torch's storages. */
export interface PickleReference {
  readonly kind: 'reference';
  readonly items: readonly Pickled[];
}
/** A call of an allowed constructor, not made. */
export interface PickleCall {
  readonly kind: 'call';
  readonly name: string;
  readonly args: readonly Pickled[];
}
export type Pickled =
  | null
  | boolean
  | number
  | bigint
  | string
  | PickleTuple
  | PickleDict
  | PickleList
  | PickleGlobal
  | PickleReference
  | PickleCall;

/** The globals that a file may name. */
export interface Allowed {
  /** types, named but not called */
  readonly types: ReadonlySet<string>;
  /** constructors, kept as calls that are not made */
  readonly calls: ReadonlySet<string>;
  /** constructors of an empty dictionary */
  readonly dicts: ReadonlySet<string>;
}

/** Every opcode's name, for messages. */
// biome-ignore format: a table
const names: Readonly<Record<number, string>> = {
  40: 'MARK', 46: 'STOP', 48: 'POP', 49: 'POP_MARK', 50: 'DUP', 70: 'FLOAT', 73: 'INT', 74: 'BININT', 75: 'BININT1',
  76: 'LONG', 77: 'BININT2', 78: 'NONE', 80: 'PERSID', 81: 'BINPERSID', 82: 'REDUCE', 83: 'STRING', 84: 'BINSTRING',
  85: 'SHORT_BINSTRING', 86: 'UNICODE', 88: 'BINUNICODE', 97: 'APPEND', 98: 'BUILD', 99: 'GLOBAL', 100: 'DICT',
  125: 'EMPTY_DICT', 101: 'APPENDS', 103: 'GET', 104: 'BINGET', 105: 'INST', 106: 'LONG_BINGET', 108: 'LIST', 93: 'EMPTY_LIST',
  111: 'OBJ', 112: 'PUT', 113: 'BINPUT', 114: 'LONG_BINPUT', 115: 'SETITEM', 116: 'TUPLE', 41: 'EMPTY_TUPLE', 117: 'SETITEMS',
  71: 'BINFLOAT', 128: 'PROTO', 129: 'NEWOBJ', 130: 'EXT1', 131: 'EXT2', 132: 'EXT4', 133: 'TUPLE1', 134: 'TUPLE2',
  135: 'TUPLE3', 136: 'NEWTRUE', 137: 'NEWFALSE', 138: 'LONG1', 139: 'LONG4', 66: 'BINBYTES', 67: 'SHORT_BINBYTES',
  140: 'SHORT_BINUNICODE', 141: 'BINUNICODE8', 142: 'BINBYTES8', 143: 'EMPTY_SET', 144: 'ADDITEMS', 145: 'FROZENSET',
  146: 'NEWOBJ_EX', 147: 'STACK_GLOBAL', 148: 'MEMOIZE', 149: 'FRAME', 150: 'BYTEARRAY8', 151: 'NEXT_BUFFER', 152: 'READONLY_BUFFER',
};

/** @param where names the stream in messages, such as `model.bin: archive/data.pkl` */
export function unpickle(bytes: Buffer, where: string, allowed: Allowed): Pickled {
  return new Machine(bytes, where, allowed).run();
}

class Machine {
  readonly #bytes: Buffer;
  readonly #where: string;
  readonly #allowed: Allowed;
  readonly #stack: Pickled[] = [];
  /** stack heights at the open marks */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, Pickled>();
  #at = 0;
  /** the operation in hand, for messages */
  #op = 'START';
  #opAt = 0;

  constructor(bytes: Buffer, where: string, allowed: Allowed) {
    this.#bytes = bytes;
    this.#where = where;
    this.#allowed = allowed;
  }

  #fail(what: string): never {
    throw new Error(`${this.#where}: ${this.#op} at offset ${this.#opAt}: ${what}`);
  }

  #take(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length)
      this.#fail(`${length} bytes are needed, ${this.#bytes.length - at} are left: the file is cut off`);
    this.#at += length;
    return at;
  }

  #byte(): number {
    return this.#bytes[this.#take(1)]!;
  }

  #text(length: number): string {
    if (length > MAX_STRING) this.#fail(`a text of ${length} bytes, at most ${MAX_STRING} are allowed`);
    const at = this.#take(length);
    return this.#bytes.toString('utf8', at, at + length);
  }

  #line(): string {
    const end = this.#bytes.indexOf(10, this.#at);
    if (end < 0 || end - this.#at > MAX_GLOBAL) this.#fail(`a name longer than ${MAX_GLOBAL} bytes`);
    const text = this.#bytes.toString('utf8', this.#at, end);
    this.#at = end + 1;
    return text;
  }

  #push(value: Pickled): void {
    if (this.#stack.length >= MAX_STACK) this.#fail(`more than ${MAX_STACK} values are open`);
    this.#stack.push(value);
  }

  /** Values may not be taken from below the innermost mark. */
  #pop(): Pickled {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) this.#fail('there is no value to take');
    return this.#stack.pop()!;
  }

  #top(): Pickled {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) this.#fail('there is no value to take');
    return this.#stack.at(-1)!;
  }

  #sinceMark(): Pickled[] {
    const mark = this.#marks.pop();
    if (mark === undefined) return this.#fail('there is no mark');
    return this.#stack.splice(mark);
  }

  #tuple(length: number): void {
    const items: Pickled[] = [];
    for (let i = 0; i < length; i++) items.unshift(this.#pop());
    this.#push({ kind: 'tuple', items });
  }

  #remember(index: number): void {
    if (this.#memo.size >= MAX_MEMO) this.#fail(`more than ${MAX_MEMO} remembered values`);
    this.#memo.set(index, this.#top());
  }

  #recall(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) this.#fail(`nothing was remembered as ${index}`);
    else this.#push(value);
  }

  #global(module: string, name: string): void {
    const full = `${module}.${name}`;
    const { types, calls, dicts } = this.#allowed;
    if (!types.has(full) && !calls.has(full) && !dicts.has(full)) {
      const shown = JSON.stringify(full.length > 80 ? `${full.slice(0, 77)}...` : full);
      this.#fail(
        `refused ${shown}: only tensors are read, and nothing was executed. Save the model's state_dict instead, and do not trust this file if you do not know why it names this`,
      );
    }
    this.#push({ kind: 'global', name: full });
  }

  #reduce(): void {
    const args = this.#pop();
    const callee = this.#pop();
    if (!isKind(callee, 'global') || !isKind(args, 'tuple')) this.#fail('refused: only named constructors may be called');
    else if (this.#allowed.dicts.has(callee.name)) {
      if (args.items.length > 0) this.#fail(`refused: ${callee.name} with arguments`);
      this.#push({ kind: 'dict', entries: new Map() });
    } else if (this.#allowed.calls.has(callee.name)) this.#push({ kind: 'call', name: callee.name, args: args.items });
    else this.#fail(`refused: ${callee.name} may be named, not called`);
  }

  #append(items: readonly Pickled[]): void {
    const list = this.#top();
    if (!isKind(list, 'list')) this.#fail('refused: only lists are appended to');
    else for (const item of items) list.items.push(item);
  }

  #setItems(items: readonly Pickled[]): void {
    const dict = this.#top();
    if (!isKind(dict, 'dict')) this.#fail('refused: only dictionaries are filled');
    else if (items.length % 2 !== 0) this.#fail('a key has no value');
    else for (let i = 0; i < items.length; i += 2) dict.entries.set(items[i]!, items[i + 1]!);
  }

  #build(): void {
    const state = this.#pop();
    // A state_dict carries its version numbers this way; they are not needed.
    if (!isKind(this.#top(), 'dict') || !isKind(state, 'dict'))
      this.#fail('refused: only the attributes of a dictionary are read');
  }

  #long(): number | bigint {
    const length = this.#byte();
    const at = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[at + i]!);
    value = BigInt.asIntN(Math.max(1, length * 8), value);
    return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  }

  run(): Pickled {
    for (;;) {
      this.#opAt = this.#at;
      this.#op = 'end of the file';
      const code = this.#byte();
      this.#op = names[code] ?? `opcode 0x${code.toString(16)}`;
      switch (this.#op) {
        case 'PROTO': {
          const protocol = this.#byte();
          if (protocol > PROTOCOLS) this.#fail(`protocol ${protocol} is not known`);
          break;
        }
        case 'FRAME':
          this.#take(8);
          break;
        case 'STOP': {
          const value = this.#pop();
          if (this.#stack.length > 0 || this.#marks.length > 0) this.#fail('values are left over');
          if (this.#at !== this.#bytes.length) this.#fail(`${this.#bytes.length - this.#at} bytes follow the end`);
          return value;
        }
        case 'MARK':
          if (this.#marks.length >= MAX_MARKS) this.#fail(`nested deeper than ${MAX_MARKS}`);
          this.#marks.push(this.#stack.length);
          break;
        case 'NONE':
          this.#push(null);
          break;
        case 'NEWTRUE':
          this.#push(true);
          break;
        case 'NEWFALSE':
          this.#push(false);
          break;
        case 'BININT':
          this.#push(this.#bytes.readInt32LE(this.#take(4)));
          break;
        case 'BININT1':
          this.#push(this.#byte());
          break;
        case 'BININT2':
          this.#push(this.#bytes.readUInt16LE(this.#take(2)));
          break;
        case 'LONG1':
          this.#push(this.#long());
          break;
        case 'BINFLOAT':
          this.#push(this.#bytes.readDoubleBE(this.#take(8)));
          break;
        case 'BINUNICODE':
          this.#push(this.#text(this.#bytes.readUInt32LE(this.#take(4))));
          break;
        case 'SHORT_BINUNICODE':
          this.#push(this.#text(this.#byte()));
          break;
        case 'EMPTY_TUPLE':
          this.#tuple(0);
          break;
        case 'TUPLE1':
          this.#tuple(1);
          break;
        case 'TUPLE2':
          this.#tuple(2);
          break;
        case 'TUPLE3':
          this.#tuple(3);
          break;
        case 'TUPLE':
          this.#push({ kind: 'tuple', items: this.#sinceMark() });
          break;
        case 'EMPTY_LIST':
          this.#push({ kind: 'list', items: [] });
          break;
        case 'APPEND':
          this.#append([this.#pop()]);
          break;
        case 'APPENDS':
          this.#append(this.#sinceMark());
          break;
        case 'EMPTY_DICT':
          this.#push({ kind: 'dict', entries: new Map() });
          break;
        case 'SETITEM': {
          const value = this.#pop();
          this.#setItems([this.#pop(), value]);
          break;
        }
        case 'SETITEMS':
          this.#setItems(this.#sinceMark());
          break;
        case 'BINPUT':
          this.#remember(this.#byte());
          break;
        case 'LONG_BINPUT':
          this.#remember(this.#bytes.readUInt32LE(this.#take(4)));
          break;
        case 'MEMOIZE':
          this.#remember(this.#memo.size);
          break;
        case 'BINGET':
          this.#recall(this.#byte());
          break;
        case 'LONG_BINGET':
          this.#recall(this.#bytes.readUInt32LE(this.#take(4)));
          break;
        case 'GLOBAL': {
          const module = this.#line();
          this.#global(module, this.#line());
          break;
        }
        case 'STACK_GLOBAL': {
          const name = this.#pop();
          const module = this.#pop();
          if (typeof name !== 'string' || typeof module !== 'string') this.#fail('the name of a type must be a text');
          else this.#global(module, name);
          break;
        }
        case 'BINPERSID': {
          const id = this.#pop();
          if (!isKind(id, 'tuple')) this.#fail('refused: only storages are referred to');
          else this.#push({ kind: 'reference', items: id.items });
          break;
        }
        case 'REDUCE':
          this.#reduce();
          break;
        case 'BUILD':
          this.#build();
          break;
        default:
          this.#fail('refused: files of tensors have no need of this operation');
      }
    }
  }
}

type Kinds = Exclude<Pickled, null | boolean | number | bigint | string>;

export function isKind<K extends Kinds['kind']>(value: Pickled | undefined, kind: K): value is Extract<Kinds, { kind: K }> {
  return typeof value === 'object' && value !== null && value.kind === kind;
}
