/** A server that is killed while several clients write: what it confirmed is there after a restart, what it did not is there whole or not at all. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { Random } from '../../src/random.ts';
import { root } from '../cli/start.ts';
import { temporaryFolder } from '../tiny-world.ts';
import { ask, requestOf, startHarness } from './harness.ts';

const kills = Number(process.env.VISEDIT_KILLS ?? 4);
const folder = temporaryFolder();
const data = join(folder, 'data');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function start(): Promise<{ child: ChildProcess; url: string; end: Promise<unknown> }> {
  const words = ['serve', '--model', 'mini-llava', '--port', '0', '--data-dir', data, '--threads', '1'];
  const child = spawn(process.execPath, [`${root}bin/visedit`, ...words], { stdio: ['ignore', 'ignore', 'pipe'] });
  const end = new Promise((resolve) => child.on('close', resolve));
  let text = '';
  const url = await new Promise<string>((resolve, reject) => {
    child.stderr!.on('data', (piece) => {
      text += piece;
      const found = /Serving .* at (http:\S+);/.exec(text)?.[1];
      if (found !== undefined) resolve(found);
    });
    void end.then(() => reject(new Error(text)));
  });
  return { child, url, end };
}

interface Known {
  note: string | null;
  enabled: boolean;
}

test(`${kills} kills with four writers`, async () => {
  const harness = await startHarness();
  const { image, prompt, target } = requestOf(harness.records[0]!);
  await harness.close();
  const random = new Random('server kills');
  /** what was confirmed, by id; null: deleted */
  const confirmed = new Map<string, Known | null>();
  /** edits whose last change was not confirmed, with what they may be beside it */
  const open = new Map<string, Known | null>();
  let changes = 0;
  for (let kill = 0; kill <= kills; kill++) {
    const { child, url, end } = await start();
    const { json } = await ask(url, 'GET', '/v1/edits?limit=200');
    const there = new Map((json.data as ({ id: string } & Known)[]).map(({ id, note, enabled }) => [id, { note, enabled }]));
    for (const [id, known] of confirmed) {
      const now = there.get(id) ?? null;
      const may = open.has(id) ? [known, open.get(id)!] : [known];
      expect(may, `${id} after ${kill} kills`).toContainEqual(now);
      if (now !== null) confirmed.set(id, now);
      else confirmed.delete(id);
    }
    // An addition that was not confirmed is there whole, or not at all.
    for (const [id, known] of there) if (!confirmed.has(id)) confirmed.set(id, known);
    open.clear();
    expect(
      readdirSync(join(data, 'edits'))
        .filter((name) => name.startsWith('edit_'))
        .sort(),
    ).toEqual([...there.keys()].map((id) => `${id}.safetensors`).sort());
    expect(readdirSync(data, { recursive: true }).filter((name) => String(name).endsWith('.tmp'))).toEqual([]);
    if (kill === kills) {
      child.kill('SIGTERM');
      await end;
      break;
    }
    let dead = false;
    const writer = async (set: string): Promise<void> => {
      const own: string[] = [];
      while (!dead) {
        const id = own[random.int(own.length + 1)];
        try {
          if (id === undefined) {
            const body = { model: 'mini-llava', set, editor: 'vead', image, prompt, target, probes: 'none' };
            const made = await ask(url, 'POST', '/v1/edits', body);
            expect(made.status).toBe(201);
            confirmed.set(made.json.id, { note: null, enabled: true });
            own.push(made.json.id);
          } else {
            const change = [{ note: `n${changes}` }, { enabled: random.int(2) === 0 }, null][random.int(3)]!;
            const next = change === null ? null : { ...confirmed.get(id)!, ...change };
            open.set(id, next);
            const { status } = await ask(url, change === null ? 'DELETE' : 'PATCH', `/v1/edits/${id}`, change ?? undefined);
            expect(status).toBe(200);
            confirmed.set(id, next);
            open.delete(id);
            if (next === null) own.splice(own.indexOf(id), 1);
          }
          changes++;
        } catch (error) {
          if (!dead && !(error instanceof TypeError)) throw error;
          return;
        }
      }
    };
    const writers = ['a', 'b', 'c', 'd'].map(writer);
    await new Promise((resolve) => setTimeout(resolve, 500 + 3000 * random.uniform()));
    dead = true;
    child.kill('SIGKILL');
    await Promise.all([end, ...writers]);
  }
  console.log(`${changes} changes confirmed over ${kills} kills`);
  expect(changes).toBeGreaterThan(kills);
});
