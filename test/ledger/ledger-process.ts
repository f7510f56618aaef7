/** Changes a store of edits as fast as it can until it is killed, and says of each change when it is confirmed: a line of JSON each. */

import { writeEdit } from '../../src/editors/files.ts';
import { Ledger } from '../../src/ledger/ledger.ts';
import { Random } from '../../src/random.ts';

const [folder, seed] = process.argv.slice(2) as [string, string];
const random = new Random(seed);
const store = new Ledger(folder, { edits: 1e6, editsPerSet: 1e6 });
const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const data = new Float32Array(20_000).fill(1);
say({ ready: true });

function change(n: number): void {
  const there = store.edits;
  const some = there[random.int(Math.max(1, there.length))];
  const kind = some === undefined ? 0 : random.int(5);
  if (kind < 2 || some === undefined) {
    const id = store.newId();
    say({ doing: 'add', id });
    const about = {
      editor: 'vead',
      model: { name: 'm', fingerprint: 'f' },
      request: { prompt: `prompt ${n}`, target: `target ${n}` },
    };
    writeEdit(store.path(id), {
      ...about,
      settings: {},
      tensors: new Map([['x', { dtype: 'float32', shape: [data.length], data }]]),
    });
    const more = {
      id,
      model: 'm',
      fingerprint: 'f',
      set: `s${n % 3}`,
      editor: 'vead',
      weights: null,
      note: null,
      check: null,
      warnings: [],
    };
    store.add({ ...more, ...about.request }, data.subarray(0, 100) as unknown as Uint8Array);
    say({ done: 'add', id, prompt: about.request.prompt });
  } else if (kind === 2) {
    say({ doing: 'delete', id: some.id });
    store.delete(some.id);
    say({ done: 'delete', id: some.id });
  } else {
    const note = `note ${n}`;
    say({ doing: 'note', id: some.id, note });
    store.update(some.id, { note, enabled: kind === 3 });
    say({ done: 'note', id: some.id, note });
  }
}

for (let n = 0; ; n++) {
  change(n);
  // Lets what was said leave the process.
  await new Promise((resolve) => setImmediate(resolve));
}
