// Begins a program of its own, a thread or a process, from TypeScript source: neither takes over the loader of the program that starts it.
import { pathToFileURL } from 'node:url';

await import(new URL('from-source.mjs', import.meta.url).href);
await import(pathToFileURL(process.argv[2]).href);
