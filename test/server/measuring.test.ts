/** Scope cards of a set that changes: asked again in the background, watched, given up, and asked for by hand. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { EditCheck } from '../../src/evaluation/scope-card.ts';
import { type Harness, requestOf, startHarness } from './harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness({ measure: 'changed' });
}, 120_000);
afterAll(() => harness.close());

const set = 'mini-llava@together';
const add = async (i: number, more: object = {}): Promise<{ id: string; card: EditCheck['card']; measured: number | null }> => {
  const edit = { model: 'mini-llava', set: 'together', editor: 'vead', ...requestOf(harness.records[i]!), ...more };
  const { status, json } = await harness.ask('POST', '/v1/edits', edit);
  expect([status, json.error]).toEqual([201, undefined]);
  return json;
};
const measuring = async (): Promise<string | null> => (await harness.ask('GET', `/v1/sets/${set}`)).json.measuring;
const edit = async (id: string) => (await harness.ask('GET', `/v1/edits/${id}`)).json;
const end = async (job: string) => {
  const state = async () => (await harness.ask('GET', `/v1/jobs/${job}`)).json;
  await expect.poll(async () => (await state()).state, { timeout: 60_000 }).not.toMatch(/queued|running/);
  return state();
};

test('a set that changes is measured under all its edits; alone, an edit keeps the card that it was made with', async () => {
  const first = await add(0);
  expect([first.measured, await measuring()]).toEqual([null, null]);
  const second = await add(1);
  const job = await end((await measuring())!);
  expect(job).toMatchObject({ kind: 'measurement', state: 'done', progress: { done: 2, total: 2 } });
  expect(job.result).toMatchObject({ object: 'measurement', set, revision: 2, edits: 2 });
  for (const { id, card } of [first, second]) {
    const now = await edit(id);
    expect(now.measured).toBe(2);
    expect([now.card[0].prompt, now.card[0].before]).toEqual([card[0]!.prompt, card[0]!.before]);
  }
  // What the set says now is what it says when it is asked.
  const { json } = await harness.ask('POST', '/v1/comparisons', {
    before: 'mini-llava',
    after: set,
    queries: [{ kind: 'reliability', ...requestOf(harness.records[0]!) }],
  });
  expect((await edit(first.id)).after.text).toBe(json.queries[0].after.text);

  await harness.ask('PATCH', `/v1/edits/${second.id}`, { enabled: false });
  expect((await end((await measuring())!)).result).toMatchObject({ revision: 3, edits: 1 });
  expect([(await edit(first.id)).measured, (await edit(second.id)).measured]).toEqual([3, 2]);
  // A note changes nothing that a card asks.
  await harness.ask('PATCH', `/v1/edits/${second.id}`, { note: 'seen' });
  expect(await measuring()).toBeNull();
}, 180_000);

test('a measurement can be cancelled and begun again, and gives way when the set changes', async () => {
  await harness.ask('POST', `/v1/sets/${set}/revert`, {});
  const job = (await measuring())!;
  expect((await harness.ask('DELETE', `/v1/jobs/${job}`)).json.state).toBe('cancelled');
  expect(await measuring()).toBeNull();
  const begun = await harness.ask('POST', `/v1/sets/${set}/measure`, {});
  expect([begun.status, begun.json.kind, begun.json.id]).toEqual([202, 'measurement', await measuring()]);
  const third = await add(2, { probes: 'none' });
  expect((await end(begun.json.id)).state).toMatch(/cancelled|done/);
  const last = await end((await measuring())!);
  expect(last.result).toMatchObject({ edits: 3 });
  expect((await edit(third.id)).card.length).toBeGreaterThan(1);
  expect((await harness.ask('POST', '/v1/sets/mini-llava@nothing/measure', {})).status).toBe(404);
  await harness.ask('POST', `/v1/sets/${set}/measure`, {});
  expect((await harness.ask('DELETE', `/v1/sets/${set}`)).status).toBe(200);
  await expect.poll(() => harness.server.services.jobs.unfinished, { timeout: 30_000 }).toBe(0);
  expect((await harness.ask('GET', '/v1/edits')).json.total).toBe(0);
}, 180_000);
