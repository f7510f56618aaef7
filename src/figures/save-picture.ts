/** Writes a figure: SVG as it is, PNG drawn from it with the fonts beside this file, so that it needs none on the machine. */
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type * as resvg from '@resvg/resvg-js';

const fontFiles = ['inter-regular.ttf', 'inter-semibold.ttf'].map((name) =>
  fileURLToPath(new URL(`./fonts/${name}`, import.meta.url)),
);

/** Endings of names that pictures may have. */
export const pictureEndings = ['.svg', '.png'] as const;

/** Pixels of a PNG for one CSS pixel: 3 makes 288 to the inch, sharp in print. */
const pixelsPerUnit = 3;

/**
 * PNG bytes of SVG text.
 * @param zoom pixels for one CSS pixel
 */
export function toPng(svg: string, zoom = pixelsPerUnit): Uint8Array {
  const { Resvg } = createRequire(import.meta.url)('@resvg/resvg-js') as typeof resvg;
  const drawn = new Resvg(svg, {
    fitTo: { mode: 'zoom', value: zoom },
    background: '#ffffff',
    font: { loadSystemFonts: false, fontFiles, defaultFontFamily: 'Inter', sansSerifFamily: 'Inter' },
  });
  return drawn.render().asPng();
}

/**
 * Writes SVG text as SVG or PNG, by the ending of the name; the folder is made, and a half-written file is never left behind.
 * @throws Error when the name ends otherwise
 */
export function savePicture(path: string, svg: string): void {
  const ending = pictureEndings.find((one) => path.toLowerCase().endsWith(one));
  if (!ending) throw new Error(`cannot write a picture to ${path}: the name must end in .svg or .png`);
  const bytes = ending === '.svg' ? svg : toPng(svg);
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    makeFolders(dirname(resolve(path)));
    writeFileSync(temporary, bytes);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** One after the other: Node's own way says of a read-only disk that a folder does not exist. */
function makeFolders(path: string): void {
  if (existsSync(path)) return;
  makeFolders(dirname(path));
  try {
    mkdirSync(path);
  } catch (error) {
    if (!existsSync(path)) throw error;
  }
}
