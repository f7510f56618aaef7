/**
 * Fuzzes one reader for some seconds: run.ts TARGET SECONDS SEED CORPUS FINDINGS. Inputs that reach new code join the corpus. Prints one JSON line.
 * An input is in a file, behind its length, before it runs, so that the one that ends the process is not lost.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync, writevSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../src/random.ts';
import { Coverage } from './coverage.ts';
import { faultOf } from './judge.ts';
import { Mutations } from './mutate.ts';
import type { Target } from './targets.ts';

const [name, seconds, seed, corpusFolder, findings] = process.argv.slice(2) as [string, string, string, string, string];
const coverage = new Coverage();
// After the counters are on.
const { cleanUp, targets } = await import('./targets.ts');
const target: Target = await targets[name as keyof typeof targets]();
const random = new Random(`${name} ${seed}`);

function nameOf(input: Uint8Array): string {
  return createHash('sha256').update(input).digest('hex').slice(0, 16);
}

// Libraries that print.
for (const method of ['log', 'info', 'warn', 'error', 'debug'] as const) console[method] = () => {};

/** Where an error began; the libraries make thousands for one input, and a whole trace of each takes most of the time. */
Error.stackTraceLimit = 2;

const MOST_FINDINGS = 20;
/** Inputs between two looks at the clock, which let what the reader left for later run. */
const BATCH = 64;

mkdirSync(corpusFolder, { recursive: true });
const pending = join(corpusFolder, '..', `${name}.${seed}.pending`);
const file = openSync(pending, 'w');
const corpus: Uint8Array[] = [];
const told = new Set<string>();
let executions = 0;
const lengthOf = new DataView(new ArrayBuffer(4));

/** @returns whether it reached something new */
async function tryOut(input: Uint8Array): Promise<boolean> {
  executions++;
  lengthOf.setUint32(0, input.length, true);
  writevSync(file, [lengthOf, input], 0);
  coverage.begin();
  const fault = await faultOf(target, input);
  const isNew = coverage.end();
  if (fault !== undefined) tell(fault, input);
  return isNew && fault === undefined;
}

function tell(fault: string, input: Uint8Array): void {
  // One of each kind: its first line and place.
  const kind = fault.split('\n').slice(0, 3).join('\n').replace(/\d+/g, '#');
  if (told.has(kind) || told.size >= MOST_FINDINGS) return;
  told.add(kind);
  mkdirSync(findings, { recursive: true });
  writeFileSync(join(findings, nameOf(input)), input);
  process.stderr.write(`${name}: ${join(findings, nameOf(input))}: ${fault}\n`);
}

// What was kept, the small ones first: those that now reach nothing of their own go.
for (const seed of target.seeds) {
  corpus.push(seed);
  await tryOut(seed);
}
const kept = readdirSync(corpusFolder).map((one) => ({
  path: join(corpusFolder, one),
  input: readFileSync(join(corpusFolder, one)),
}));
for (const { path, input } of kept.sort((a, b) => a.input.length - b.input.length))
  if (await tryOut(input)) corpus.push(input);
  else rmSync(path);

const mutations = new Mutations(corpus, coverage.words, random);
const until = performance.now() + Number(seconds) * 1000;
while (performance.now() < until) {
  for (let n = 0; n < BATCH; n++) {
    const input = mutations.next();
    if (!(await tryOut(input))) continue;
    corpus.push(input);
    writeFileSync(join(corpusFolder, nameOf(input)), input);
  }
  await new Promise(setImmediate);
}
rmSync(pending, { force: true });
await target.close?.();
cleanUp();
const { user, system } = process.cpuUsage();
process.stdout.write(
  `${JSON.stringify({ target: name, executions, seconds: (user + system) / 1e6, corpus: corpus.length, blocks: coverage.blocks, findings: told.size })}\n`,
);
process.exit(0);
