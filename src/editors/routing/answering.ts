/** Answers where each query is under what routing chose for it: queries that nothing acts on are the unedited model's, bit for bit. */
import type { Asked } from '../../input/segments.ts';
import { type AnsweringModel, answerTargets, generateAll, type RewriteRows, readInput, unedited } from '../../models/answer.ts';
import { forRows } from '../../models/generate.ts';
import type { Vlm } from '../../models/vlm.ts';
import { inGroups } from '../context/memory.ts';

/**
 * @param route what acts on each query; undefined: nothing does
 * @param rewrite of the queries that something acts on, in their order
 */
export function routedModel<R>(
  vlm: Vlm,
  route: (queries: readonly Asked[]) => Promise<readonly (R | undefined)[]>,
  rewrite: (routes: readonly R[]) => RewriteRows,
): AnsweringModel {
  const plain = unedited(vlm);
  const answer = async <Q extends Asked, A>(
    queries: readonly Q[],
    run: (queries: Q[], rows: readonly number[], rewrite: RewriteRows | undefined) => Promise<A[]>,
  ): Promise<A[]> => {
    const routes = await route(queries);
    const isRouted = routes.map((one) => one !== undefined);
    return inGroups(isRouted, (rows) =>
      run(
        rows.map((i) => queries[i]!),
        rows,
        isRouted[rows[0]!] ? rewrite(rows.map((i) => routes[i]!)) : undefined,
      ),
    );
  };
  return {
    answerTargets: (queries) =>
      answer(queries, (some, _, rewriting) =>
        rewriting === undefined ? plain.answerTargets(some) : answerTargets(vlm, some, rewriting),
      ),
    generate: (queries, options = {}) =>
      answer(queries, (some, rows, rewriting) =>
        rewriting === undefined
          ? plain.generate(some, forRows(options, rows))
          : generateAll(vlm, some, forRows(options, rows), rewriting),
      ),
    read: async (asked) => {
      const [one] = await route([asked]);
      return readInput(vlm, asked, one === undefined ? undefined : rewrite([one]));
    },
  };
}
