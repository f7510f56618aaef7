/** `npm run bench:server`: many clients at once on mini-llava, after 20 seconds to warm up. --clients N (32) --seconds S (60) --json */
import { parseArgs } from 'node:util';
import { table } from '../apps/cli/table.ts';
import { loadServer } from './serve.ts';

const { values: given } = parseArgs({
  options: {
    clients: { type: 'string', default: '32' },
    seconds: { type: 'string', default: '60' },
    json: { type: 'boolean', default: false },
  },
});
const seconds = Number(given.seconds);
const warmUp = 20;
const figures = await loadServer({
  clients: Number(given.clients),
  seconds: seconds + warmUp,
  warmUp,
  say: (line) => void process.stderr.write(`${line}\n`),
});
const { latency, memory, errors } = figures;
if (given.json) process.stdout.write(`${JSON.stringify(figures)}\n`);
else
  process.stdout.write(
    `${table({
      head: ['', ''],
      rows: [
        ['clients', figures.clients],
        ['seconds', figures.seconds.toFixed(0)],
        ['requests answered', `${figures.answered} (${figures.perSecond.toFixed(1)}/s), ${figures.streamed} of them streamed`],
        ['refused, queue full', figures.refused],
        ['errors', Object.keys(errors).length === 0 ? 'none' : JSON.stringify(errors)],
        [
          'latency, median, 95 %, largest',
          [latency.median, latency.p95, latency.largest].map((ms) => `${ms.toFixed(0)} ms`).join(', '),
        ],
        [
          'memory, first fifth, last fifth, largest',
          [memory.first, memory.last, memory.largest].map((mb) => `${mb.toFixed(0)} MB`).join(', '),
        ],
      ],
      align: ['left', 'left'],
    })}\n`,
  );
