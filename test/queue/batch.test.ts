/** What stands in the queue is checked before anything is opened: others may write to it. */
import { expect, test } from 'vitest';
import { checkBatch } from '../../apps/queue/batch.ts';
import { batchSeed } from '../../scripts/fuzz/line-seeds.ts';

const withJob = (change: object): object => ({ ...batchSeed, job: { ...batchSeed.job, ...change } });

test('a batch as evaluate hands it out is taken as it is', () => {
  expect(checkBatch(batchSeed, [])).toEqual(batchSeed);
});

test.each([
  ['nothing', null, /the batch in the queue/],
  ['a list', [], /the batch in the queue/],
  ['no job', { ...batchSeed, job: null }, /job/],
  ['a field that no job has', withJob({ file: '/etc/passwd' }), /job.*file/s],
  ['a model that is no path', withJob({ model: { toString: 1 } }), /job\.model/],
  ['a batch of nothing', withJob({ batch: 0 }), /job\.batch: expected a number above 0/],
  ['answers of infinite length', withJob({ maxNewTokens: 1e12 }), /job\.maxNewTokens/],
  ['a batch that is not numbered', { ...batchSeed, batch: -1 }, /batch: expected 0 or more/],
  ['half a batch', { ...batchSeed, batch: 0.5 }, /batch: expected a whole number/],
])('%s is refused', (_, given, message) => {
  expect(() => checkBatch(given, [])).toThrow(message);
});

test('a batch cannot have code loaded that the user of the worker did not name', () => {
  const strange = withJob({ editor: '/tmp/evil.js' });
  expect(() => checkBatch(strange, [])).toThrow(/which this worker was not given; start it with --editor "\/tmp\/evil\.js"/);
  expect(() => checkBatch(strange, ['/tmp/other.js'])).toThrow(/not given/);
  expect(checkBatch(strange, ['/tmp/evil.js']).job.editor).toBe('/tmp/evil.js');
});
