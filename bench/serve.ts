/** A server as a process, asked by many clients at once for some time: what they got, how fast, and what memory it took. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildWorld } from '../lab/world/build.ts';
import { loadRecords } from '../src/input/records.ts';

export interface LoadOptions {
  readonly clients: number;
  readonly seconds: number;
  /** seconds at the start that memory is not measured: programs are compiled, caches fill */
  readonly warmUp: number;
  /** of the server's Node, such as limits of its heap */
  readonly nodeFlags?: readonly string[];
  readonly say?: (line: string) => void;
}

export interface LoadFigures {
  readonly clients: number;
  readonly seconds: number;
  readonly requests: number;
  readonly perSecond: number;
  readonly answered: number;
  readonly streamed: number;
  /** refused because the queue was full */
  readonly refused: number;
  /** what else was answered, by status */
  readonly errors: Readonly<Record<string, number>>;
  /** milliseconds */
  readonly latency: { readonly median: number; readonly p95: number; readonly largest: number };
  /** megabytes, the mean of the first and of the last fifth of the measured time, and the largest */
  readonly memory: { readonly first: number; readonly last: number; readonly largest: number };
}

interface Asked {
  readonly body: object;
  readonly stream: boolean;
}

/** mini-llava with one edited set; the clients ask it and the unedited model, plainly and as streams, with pictures and without. */
export async function loadServer({
  clients,
  seconds,
  warmUp,
  nodeFlags = [],
  say = () => {},
}: LoadOptions): Promise<LoadFigures> {
  const folder = mkdtempSync(join(tmpdir(), 'visedit-load-'));
  const world = join(folder, 'world');
  await buildWorld({ seed: 'load', out: world, sizes: { vqaTrain: 0, vqaTest: 11, captionTrain: 0, captionTest: 0 } });
  const records = loadRecords(join(world, 'vqa_test.json'), join(world, 'images'));
  const picture = (path: string): string => `data:image/png;base64,${readFileSync(path).toString('base64')}`;
  const words = ['serve', '--model', 'mini-llava', '--port', '0', '--data-dir', join(folder, 'data')];
  const program = fileURLToPath(new URL('../bin/visedit', import.meta.url));
  const child = spawn(process.execPath, [...nodeFlags, program, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  const alive = (): boolean => child.exitCode === null && child.signalCode === null;
  const died = (): Error => new Error(`the server ended with ${child.exitCode ?? child.signalCode}: ${said}`);
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()));
  try {
    const url = await new Promise<string>((resolve, reject) => {
      child.stderr.on('data', (piece) => {
        // The latest lines are enough: a log line is written for each request.
        said = (said + piece).slice(-10_000);
        const found = /(http:\/\/127\.0\.0\.1:\d+)/.exec(said)?.[1];
        if (found !== undefined) resolve(found);
      });
      void ended.then(() => reject(died()));
    });
    const post = (path: string, body: object): Promise<Response> =>
      fetch(url + path, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
    const { request } = records[0]!;
    const made = await post('/v1/edits', {
      model: 'mini-llava',
      set: 'load',
      editor: 'vead',
      ...request,
      image: picture(request.image),
    });
    if (made.status !== 201) throw new Error(await made.text());
    const asked = (client: number, n: number): Asked => {
      const record = records[(client + n) % records.length]!;
      const stream = n % 2 === 1;
      const text =
        n % 5 === 4 ? record.queries.textLocality.prompt : n % 3 === 2 ? 'Describe the picture.' : record.request.prompt;
      const image = n % 5 === 4 ? [] : [{ type: 'image_url', image_url: { url: picture(record.request.image) } }];
      const content = [...image, { type: 'text', text }];
      const model = client % 2 === 0 ? 'mini-llava' : 'mini-llava@load';
      return { stream, body: { model, messages: [{ role: 'user', content }], stream, logprobs: stream } };
    };
    const latencies: number[] = [];
    const errors: Record<string, number> = {};
    let [answered, streamed, refused] = [0, 0, 0];
    const began = performance.now();
    const until = began + seconds * 1000;
    const client = async (number: number): Promise<void> => {
      for (let n = 0; performance.now() < until && alive(); n++) {
        const { body, stream } = asked(number, n);
        const started = performance.now();
        try {
          const response = await post('/v1/chat/completions', body);
          const text = await response.text();
          const whole =
            response.status === 200 && (stream ? text.endsWith('data: [DONE]\n\n') && !text.includes('"error"') : true);
          if (whole) {
            latencies.push(performance.now() - started);
            answered++;
            if (stream) streamed++;
          } else if (response.status === 429) {
            refused++;
            await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get('retry-after'))));
          } else errors[response.status] = (errors[response.status] ?? 0) + 1;
        } catch (error) {
          const { cause, message } = error as Error;
          const name = (cause as NodeJS.ErrnoException | undefined)?.code ?? message;
          errors[name] = (errors[name] ?? 0) + 1;
        }
      }
    };
    const memory: number[] = [];
    const watch = async (): Promise<void> => {
      while (performance.now() < until) {
        await new Promise((resolve) => setTimeout(resolve, 500));
        if (performance.now() < began + warmUp * 1000) continue;
        if (!alive()) throw died();
        const text = await (await fetch(`${url}/metrics`)).text();
        memory.push(Number(/^process_resident_memory_bytes (\S+)$/m.exec(text)?.[1]) / 1e6);
        if (memory.length % 10 === 0)
          say(`${Math.round((performance.now() - began) / 1000)} s: ${answered} answered, ${memory.at(-1)!.toFixed(0)} MB`);
      }
    };
    await Promise.all([watch(), ...Array.from({ length: clients }, (_, i) => client(i))]);
    const took = (performance.now() - began) / 1000;
    latencies.sort((a, b) => a - b);
    const fifth = Math.max(1, Math.floor(memory.length / 5));
    const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    const requests = answered + refused + Object.values(errors).reduce((a, b) => a + b, 0);
    return {
      clients,
      seconds: took,
      requests,
      perSecond: requests / took,
      answered,
      streamed,
      refused,
      errors,
      latency: {
        median: latencies[Math.floor(latencies.length / 2)]!,
        p95: latencies[Math.floor(latencies.length * 0.95)]!,
        largest: latencies.at(-1)!,
      },
      memory: { first: mean(memory.slice(0, fifth)), last: mean(memory.slice(-fifth)), largest: Math.max(...memory) },
    };
  } finally {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}
