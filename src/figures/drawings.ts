/** Plain data in, SVG text out, in Node and in browsers alike. */
export { type BeforeAfter, type BeforeAfterRow, beforeAfter } from './before-after.ts';
export { type ScaleName, scaleColour, scaleNames } from './colours.ts';
export { drawFigure, type Figure, type FigurePanel, figureJson, type PanelKind } from './figure.ts';
export { type HeatMap, type HeatMapRow, type HeatMaps, heatMaps, type PictureOf } from './heat-maps.ts';
export type { Box } from './heat-panel.ts';
export { type LineChart, type LineSeries, lineChart } from './line-chart.ts';
export { type MatrixFigure, matrix } from './matrix.ts';
export { type ModuleBars, moduleBars } from './module-bars.ts';
export { arrange, textWidthOfPage } from './panels.ts';
export type { Pixels } from './raster.ts';
