/** What the two threads tell each other. */

import type { PlainError } from '../errors.ts';
import type { TaskName } from './tasks.ts';

export type ToEngine =
  | { readonly id: number; readonly task: TaskName; readonly order: unknown }
  | { readonly id: number; readonly stop: string };

export type FromEngine =
  | { readonly id: number; readonly news: unknown }
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: PlainError; readonly stopped: boolean };
