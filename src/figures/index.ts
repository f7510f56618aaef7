/** Figures: plain data in, SVG text out; `savePicture` writes SVG or PNG. */
export { type BeforeAfter, type BeforeAfterRow, beforeAfter } from './before-after.ts';
export { type ScaleName, scaleNames } from './colours.ts';
export { type HeatMap, type HeatMapRow, type HeatMaps, heatMaps } from './heat-maps.ts';
export { type LineChart, type LineSeries, lineChart } from './line-chart.ts';
export { type ModuleBars, moduleBars } from './module-bars.ts';
export type { Pixels } from './raster.ts';
export { pictureEndings, savePicture, toPng } from './save-picture.ts';
