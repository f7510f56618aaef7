/** Figures: plain data in, SVG text out; `savePicture` writes SVG or PNG. */
export * from './drawings.ts';
export { pictureEndings, savePicture, toPng } from './save-picture.ts';
