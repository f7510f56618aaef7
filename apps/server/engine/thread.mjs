// The engine's thread begins here: a thread does not take over the loader that lets Node read TypeScript.
import { register } from 'tsx/esm/api';

register();
await import('./worker.ts');
