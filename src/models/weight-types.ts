/** What weights may be kept as: floats, or whole numbers in blocks that share a scale. */
export const weightTypes = ['float32', 'float16', 'int8', 'int4'] as const;
export type WeightType = (typeof weightTypes)[number];
