/**
 * Fuzzes one reader for some seconds: run.ts TARGET SECONDS SEED CORPUS FINDINGS. Inputs that reach new code join the corpus. Prints one JSON line.
 * A batch is on disk before it runs, so that the input that ends the process is not lost.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../src/random.ts';
import { Coverage } from './coverage.ts';
import { faultOf } from './judge.ts';
import { mutated } from './mutate.ts';
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

const BATCH = 256;
const MOST_FINDINGS = 20;
const kept = existsSync(corpusFolder) ? readdirSync(corpusFolder).map((file) => readFileSync(join(corpusFolder, file))) : [];
mkdirSync(corpusFolder, { recursive: true });
const corpus: Uint8Array[] = [...target.seeds, ...kept];
const told = new Set<string>();
const known = new Set(corpus.map(nameOf));
let executions = 0;
const until = performance.now() + Number(seconds) * 1000;
const isOver = (): boolean => performance.now() > until;

async function tryOut(input: Uint8Array): Promise<void> {
  executions++;
  const fault = await faultOf(target, input);
  if (fault === undefined) return;
  // One of each kind: its first line and place.
  const kind = fault.split('\n').slice(0, 3).join('\n').replace(/\d+/g, '#');
  if (told.has(kind) || told.size >= MOST_FINDINGS) return;
  told.add(kind);
  mkdirSync(findings, { recursive: true });
  writeFileSync(join(findings, nameOf(input)), input);
  process.stderr.write(`${name}: ${join(findings, nameOf(input))}: ${fault}\n`);
}

const pending = join(corpusFolder, '..', `${name}.${seed}.pending`);
async function tryAll(batch: readonly Uint8Array[]): Promise<void> {
  writeFileSync(pending, JSON.stringify(batch.map((input) => Buffer.from(input).toString('base64'))));
  for (const input of batch) if (!isOver()) await tryOut(input);
  if (coverage.fresh(batch.length === 1) > 0) await keepNew(batch);
}

/** Finds by halves which inputs of a batch reach new code: counters are read seldom, since that takes as long as hundreds of inputs. */
async function keepNew(batch: readonly Uint8Array[]): Promise<void> {
  if (batch.length === 1) {
    const [input] = batch as [Uint8Array];
    if (known.has(nameOf(input))) return;
    known.add(nameOf(input));
    corpus.push(input);
    writeFileSync(join(corpusFolder, nameOf(input)), input);
    return;
  }
  const middle = batch.length >> 1;
  for (const half of [batch.slice(0, middle), batch.slice(middle)]) {
    if (isOver()) return;
    for (const input of half) await faultOf(target, input);
    if (coverage.fresh(half.length === 1) > 0) await keepNew(half);
  }
}

await tryAll(corpus);
while (!isOver()) await tryAll(Array.from({ length: BATCH }, () => mutated(corpus, random)));
rmSync(pending, { force: true });
await target.close?.();
cleanUp();
process.stdout.write(
  `${JSON.stringify({ target: name, executions, corpus: corpus.length, blocks: coverage.blocks, findings: told.size })}\n`,
);
process.exit(0);
