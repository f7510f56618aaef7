/**
 * What answers that should have stayed became: of the free answers that an edit changed, how many are now the edit's own target.
 *   npx tsx scripts/changed-answers.ts EVALUATION...
 * Each EVALUATION is a folder that `visedit evaluate` wrote.
 */
import { join } from 'node:path';
import { table } from '../apps/cli/table.ts';
import type { JobIdentity } from '../src/evaluation/job.ts';
import { type AskedKind, hardKinds } from '../src/evaluation/metrics.ts';
import { readResults } from '../src/evaluation/store.ts';
import { readJson } from '../src/files/json.ts';

const localities: readonly AskedKind[] = ['textLocality', 'modalLocality', ...hardKinds];

const folders = process.argv.slice(2);
if (folders.length === 0) throw new Error('name the folders of evaluations: npx tsx scripts/changed-answers.ts EVALUATION...');
const rows = folders.flatMap((folder) => {
  const { identity } = readJson(join(folder, 'manifest.json')) as unknown as { identity: JobIdentity };
  const records = readResults(folder);
  return localities.flatMap((kind) => {
    const asked = records.filter(({ queries }) => queries[kind] !== undefined);
    const changed = asked.filter(({ queries }) => queries[kind]!.text.trim() !== queries[kind]!.textBefore.trim());
    const toTarget = changed.filter(({ queries, target }) => queries[kind]!.text.trim() === target.trim());
    return asked.length === 0
      ? []
      : [[identity.model.name, identity.editor.id, kind, asked.length, changed.length, toTarget.length]];
  });
});
process.stdout.write(`${table({ head: ['model', 'editor', 'asked', 'records', 'changed', "to the edit's target"], rows })}\n`);
