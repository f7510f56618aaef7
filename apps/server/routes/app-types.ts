/** Types that all files of routes share. */

import type { HttpBindings } from '@hono/node-server';
import type { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Services } from '../services.ts';

export interface AppEnv {
  Bindings: HttpBindings;
  Variables: {
    requestId: string;
    tokens?: number;
    /** counts the bytes of the body as held after the answer, until the returned function is called */
    holdBody?: () => () => void;
  };
}

export type App = OpenAPIHono<AppEnv>;
export type Ctx = Context<AppEnv>;
export type AddRoutes = (app: App, services: Services) => void;

/** Aborted when the client leaves. */
export const clientOf = (c: Ctx): AbortSignal => c.req.raw.signal;
