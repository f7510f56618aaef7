/** Activation functions by their names in configuration files (reference: transformers 4.43 `activations.py`). */
import type { Activation } from '../files/config.ts';
import { gelu, geluTanh, type Node, quickGelu, relu, silu } from '../graph/index.ts';

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
