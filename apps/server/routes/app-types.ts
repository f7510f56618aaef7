/** What all files of routes share. */

import type { HttpBindings } from '@hono/node-server';
import type { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Services } from '../services.ts';

export interface AppEnv {
  Bindings: HttpBindings;
  Variables: {
    requestId: string;
    tokens?: number;
    /** keeps the bytes of the body counted behind the end of the answer, until the function that it returns is called */
    holdBody?: () => () => void;
  };
}

export type App = OpenAPIHono<AppEnv>;
export type Ctx = Context<AppEnv>;
export type AddRoutes = (app: App, services: Services) => void;

/** Aborted when the client leaves. */
export const clientOf = (c: Ctx): AbortSignal => c.req.raw.signal;
