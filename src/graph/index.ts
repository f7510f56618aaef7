export * from './dim.ts';
export * from './dtype.ts';
export * from './gradient.ts';
export * from './node.ts';
export * from './ops/elementwise.ts';
export * from './ops/linear.ts';
export * from './ops/shape.ts';
export * from './print.ts';
