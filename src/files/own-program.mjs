// Begins a program of its own, a thread or a process, from TypeScript source: neither takes over the loader of the program that starts it.
import { pathToFileURL } from 'node:url';
import './from-source.mjs';

await import(pathToFileURL(process.argv[2]).href);
