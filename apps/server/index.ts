/** The HTTP interface: `startServer`. */
export { defaultLimits, type Limits, type ServerOptions } from './options.ts';
export { type RunningServer, startServer } from './serve.ts';
