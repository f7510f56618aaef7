/** Activation functions by their names in configuration files (reference: transformers 4.43 `activations.py`). */
import type { Activation } from '../files/config.ts';
import { add, gelu, mul, type Node, quickGelu, relu, silu, square, tanh } from '../graph/index.ts';

// x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
const geluTanh = (x: Node): Node => {
  const cubic = mul(x, add(mul(square(x), 0.044715), 1));
  return mul(mul(x, 0.5), add(tanh(mul(cubic, Math.sqrt(2 / Math.PI))), 1));
};

export const activations: Readonly<Record<Activation, (x: Node) => Node>> = {
  gelu,
  gelu_fast: geluTanh,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  quick_gelu: quickGelu,
  relu,
  silu,
  swish: silu,
};
