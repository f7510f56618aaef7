/** Modules of this package that run as programs of their own, from TypeScript source as well as from what was compiled of it. */
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface OwnProgram {
  /** for `fork` or `new Worker` */
  readonly file: string;
  /** its first arguments */
  readonly argv: string[];
}

/**
 * @param name of the module, without its ending, as `./worker`
 * @param base the `import.meta.url` of the module that starts it
 */
export function ownProgram(name: string, base: string): OwnProgram {
  const ending = extname(fileURLToPath(base));
  const file = fileURLToPath(new URL(`${name}${ending}`, base));
  return ending === '.ts'
    ? { file: fileURLToPath(new URL('./own-program.mjs', import.meta.url)), argv: [file] }
    : { file, argv: [] };
}
