/**
 * `npm run fuzz -- --minutes N [--target NAME] [--jobs N]`: feeds every reader of what strangers send with damaged inputs, guided by the code that they
 * reach. Inputs that reached new code are kept in .fuzz/; one that ends in a raw error, takes above a second or a gigabyte, or ends the process is
 * written to test/fuzz/findings/, which the tests read again.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/files/package-root.ts';
import { targets } from './fuzz/targets.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '2' },
    target: { type: 'string', multiple: true },
    jobs: { type: 'string', default: String(availableParallelism()) },
    seed: { type: 'string', default: String(Date.now()) },
  },
});
const names = [...(values.target ?? Object.keys(targets))];
const unknown = names.filter((name) => !Object.hasOwn(targets, name));
if (unknown.length > 0) throw new Error(`there is no reader ${unknown.join(', ')}; one of: ${Object.keys(targets).join(', ')}`);
const jobs = Math.min(Number(values.jobs), names.length);
/** Requests go through a whole server with its engine: they take longer, and get more time. The longest run begins first. */
const shareOf = (name: string): number => (name === 'requests' ? 5 : 1);
names.sort((a, b) => shareOf(b) - shareOf(a));
const secondsOf = (name: string): number =>
  (Number(values.minutes) * 60 * jobs * shareOf(name)) / names.reduce((sum, one) => sum + shareOf(one), 0);
/** Seconds for a start, with what was kept, and for the inputs that are under way when time is up, on a machine that has other work, too. */
const GRACE = 600;

/** In memory where the system has such a disk; gone at the end, whatever ended a reader's process. */
const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'visedit-fuzz-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

interface Done {
  target: string;
  executions: number;
  /** of the processor */
  seconds: number;
  corpus: number;
  blocks: number;
  findings: number;
}

function run(name: string): Promise<Done> {
  const corpus = join(packageRoot, '.fuzz', name);
  const findings = join(packageRoot, 'test/fuzz/findings', name);
  mkdirSync(corpus, { recursive: true });
  const seconds = secondsOf(name);
  const script = join(packageRoot, 'scripts/fuzz/run.ts');
  const child = spawn(
    process.execPath,
    [
      '--import',
      pathToFileURL(join(packageRoot, 'src/files/from-source.mjs')).href,
      script,
      name,
      String(seconds),
      values.seed,
      corpus,
      findings,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, TMPDIR: scratch } },
  );
  const timer = setTimeout(() => child.kill('SIGKILL'), (seconds + GRACE) * 1000);
  let said = '';
  child.stdout.on('data', (piece: Buffer) => {
    said += piece.toString();
  });
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const line = said.split('\n').find((one) => one.startsWith('{'));
      if (code === 0 && line !== undefined) return resolve(JSON.parse(line) as Done);
      const pending = join(packageRoot, '.fuzz', `${name}.${values.seed}.pending`);
      const kept = join(findings, `ended-${values.seed}`);
      mkdirSync(findings, { recursive: true });
      if (existsSync(pending)) {
        const written = readFileSync(pending);
        writeFileSync(kept, written.subarray(4, 4 + written.readUInt32LE(0)));
      }
      process.stderr.write(`${name}: the process ended with ${signal ?? code}; its last input is ${kept}\n`);
      resolve({ target: name, executions: 0, seconds: 0, corpus: 0, blocks: 0, findings: 1 });
    });
  });
}

const waiting = [...names];
const done: Done[] = [];
await Promise.all(
  Array.from({ length: jobs }, async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const result = await run(name);
      done.push(result);
      process.stdout.write(
        `${result.target}: ${result.executions} inputs in ${Math.round(result.seconds)} processor seconds, ${result.blocks} blocks of code, ${result.corpus} kept, ${result.findings} findings\n`,
      );
    }
  }),
);
const sum = (of: (one: Done) => number): number => done.reduce((total, one) => total + of(one), 0);
process.stdout.write(
  `all: ${sum((one) => one.executions)} inputs in ${Math.round(sum((one) => one.seconds))} processor seconds, ${sum((one) => one.findings)} findings, seed ${values.seed}\n`,
);
if (sum((one) => one.findings) > 0) process.exitCode = 1;
