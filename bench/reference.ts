/** The PyTorch side of the bench: a Python process that answers one request at a time. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface Answer {
  seconds: number;
  /** time that the processor spent, on all threads */
  cpu: number;
  [field: string]: unknown;
}

export interface Reference {
  ask(request: Record<string, unknown>): Promise<Answer>;
  close(): void;
}

/** @param python a Python with torch and safetensors */
export function startReference(python: string, threads: number): Reference {
  const script = fileURLToPath(new URL('reference.py', import.meta.url));
  const env = {
    ...process.env,
    OMP_NUM_THREADS: String(threads),
    MKL_NUM_THREADS: String(threads),
    PYTHONDONTWRITEBYTECODE: '1',
  };
  const child = spawn(python, [script], { env, stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const failed = new Promise<never>((_, reject) => {
    child.on('error', (error) => reject(new Error(`cannot start ${python} (VISEDIT_PYTHON): ${error.message}`)));
  });
  failed.catch(() => {});
  return {
    async ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const { value, done } = await Promise.race([lines.next(), failed]);
      if (done) throw new Error(`${python} ended while it was asked to ${String(request.do)}; what it printed says why`);
      return JSON.parse(value) as Answer;
    },
    close: () => child.stdin.end(),
  };
}
