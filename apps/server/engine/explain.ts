/** Tools that explain an answer: one order, whichever tool it names. */

import { toolNamed } from '../../../src/attribution/tools/index.ts';
import type { Subject } from '../../../src/attribution/tools/tool.ts';
import { ApiError, clientsFault } from '../errors.ts';
import { refusal } from '../http/schemas.ts';
import { checkAnswer, keyOf } from './attribute.ts';
import { layoutOf, type Models } from './models.ts';
import { putQuestion } from './question.ts';
import type { Explanation, ExplanationOrder, Progress } from './tasks.ts';
import type { Work } from './worker.ts';

export async function explain(models: Models, order: ExplanationOrder, work: Work<Progress>): Promise<Explanation> {
  const { under, prompt, image, answer, position, key, against } = order;
  const tool = await clientsFault('invalid_value', 'tool', () => toolNamed(order.tool));
  const read = tool.options.strict().safeParse(order.options);
  if (!read.success)
    throw refusal({ issues: read.error.issues.map((issue) => ({ ...issue, path: ['options', ...issue.path] })) });
  if (tool.picture === true && image === undefined)
    throw new ApiError(400, 'missing_field', `${tool.id} needs a picture`, { param: 'image' });
  if (tool.compares === 'must' && against.image === undefined && against.prompt === undefined)
    throw new ApiError(400, 'missing_field', `${tool.id} needs another picture or another prompt`, { param: 'against_image' });
  const { vlm, asked } = await models.under(under);
  checkAnswer(vlm, answer);
  if (asked.read === undefined)
    throw new ApiError(400, 'attribution_unavailable', 'edits of this editor act outside of what attribution looks at', {
      param: 'model',
    });
  const { asked: question } = await clientsFault('invalid_prompt', 'prompt', () => putQuestion(vlm, { prompt, image }));
  await layoutOf(vlm, 'prompt', question);
  const before = answer.slice(0, position);
  const keyId = await clientsFault('invalid_value', 'key', () => keyOf(vlm, question, key, answer[position]));
  const subject: Subject = {
    ...{ vlm, asked: question, keyId },
    reading: await clientsFault('prompt_too_long', 'answer', () => asked.read!({ ...question, answer: before })),
    read: (other) => asked.read!({ ...other, answer: before }),
  };
  const { table, matrix, ...found } = await clientsFault('invalid_value', 'options', () =>
    tool.run(subject, read.data, {
      ...{ against, seed: order.seed, signal: work.signal },
      onProgress: (done, total) => work.tell({ done, total, note: tool.id }),
    }),
  );
  return { tool: tool.id, ...found, table, ...(matrix === undefined ? {} : { matrix }) };
}
