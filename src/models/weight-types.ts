/** What weights may be kept as: floats, or whole numbers in blocks that share a scale. */
export const weightTypes = ['float32', 'float16', 'int8', 'int4'] as const;
export type WeightType = (typeof weightTypes)[number];

/** Whether matrices are kept as whole numbers. */
export const isRounded = (type: WeightType | undefined): boolean => type === 'int8' || type === 'int4';
