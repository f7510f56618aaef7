/** The part of onnx.proto3 that a compiled program needs, written with pbf. Field numbers are those of the ONNX specification (IR version 10). */

import { PbfWriter } from 'pbf';
import type { Dim } from '../graph/dim.ts';
import type { Tensor } from '../graph/dtype.ts';
import type { OnnxAttribute } from '../graph/node.ts';

export interface NodeProto {
  op: string;
  domain: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes: Record<string, OnnxAttribute | GraphProto | undefined>;
}

export interface ExternalData {
  /** file name, relative to the folder of the model */
  location: string;
  offset: number;
  bytes: number;
}

export interface InitializerProto {
  name: string;
  type: number;
  shape: readonly number[];
  data: Uint8Array | ExternalData;
}

export interface ValueProto {
  name: string;
  type: number;
  shape: readonly Dim[];
}

/** A graph; one within a node may read the values of the graphs around it. */
export interface GraphProto {
  nodes: readonly NodeProto[];
  inputs: readonly ValueProto[];
  outputs: readonly ValueProto[];
  initializers?: readonly InitializerProto[];
}

export interface ModelProto extends GraphProto {
  opsets: Record<string, number>;
}

function writeAttribute([name, value]: [string, OnnxAttribute | GraphProto], pbf: PbfWriter): void {
  const whole = (x: number): number => {
    if (!Number.isSafeInteger(x)) throw new Error(`ONNX attribute ${name}: ${x} is not a whole number; write float(${x})`);
    return x;
  };
  pbf.writeStringField(1, name);
  if (typeof value === 'string') {
    pbf.writeStringField(4, value);
    pbf.writeVarintField(20, 3);
  } else if (typeof value === 'number') {
    pbf.writeVarintField(3, whole(value));
    pbf.writeVarintField(20, 2);
  } else if ('nodes' in value) {
    pbf.writeMessage(6, writeGraph, value);
    pbf.writeVarintField(20, 5);
  } else if ('float' in value) {
    pbf.writeFloatField(2, value.float);
    pbf.writeVarintField(20, 1);
  } else {
    for (const v of value) pbf.writeVarintField(8, whole(v));
    pbf.writeVarintField(20, 7);
  }
}

function writeNode(node: NodeProto, pbf: PbfWriter): void {
  for (const x of node.inputs) pbf.writeStringField(1, x);
  for (const y of node.outputs) pbf.writeStringField(2, y);
  pbf.writeStringField(3, node.outputs[0]!);
  pbf.writeStringField(4, node.op);
  for (const [key, value] of Object.entries(node.attributes))
    if (value !== undefined) pbf.writeMessage(5, writeAttribute, [key, value]);
  if (node.domain !== '') pbf.writeStringField(7, node.domain);
}

function writeEntry([key, value]: [string, string], pbf: PbfWriter): void {
  pbf.writeStringField(1, key);
  pbf.writeStringField(2, value);
}

function writeInitializer(t: InitializerProto, pbf: PbfWriter): void {
  for (const d of t.shape) pbf.writeVarintField(1, d);
  pbf.writeVarintField(2, t.type);
  pbf.writeStringField(8, t.name);
  if (t.data instanceof Uint8Array) {
    pbf.writeBytesField(9, t.data);
  } else {
    pbf.writeMessage(13, writeEntry, ['location', t.data.location]);
    pbf.writeMessage(13, writeEntry, ['offset', String(t.data.offset)]);
    pbf.writeMessage(13, writeEntry, ['length', String(t.data.bytes)]);
    pbf.writeVarintField(14, 1);
  }
}

function writeValue(value: ValueProto, pbf: PbfWriter): void {
  pbf.writeStringField(1, value.name);
  pbf.writeMessage(
    2,
    (v: ValueProto, type) => {
      type.writeMessage(
        1,
        (w: ValueProto, tensor) => {
          tensor.writeVarintField(1, w.type);
          tensor.writeMessage(
            2,
            (shape: readonly Dim[], dims) => {
              for (const d of shape) {
                dims.writeMessage(
                  1,
                  (dim: Dim, p) => {
                    if (typeof dim === 'number') p.writeVarintField(1, dim);
                    else p.writeStringField(2, dim);
                  },
                  d,
                );
              }
            },
            w.shape,
          );
        },
        v,
      );
    },
    value,
  );
}

function writeGraph(graph: GraphProto, pbf: PbfWriter): void {
  for (const n of graph.nodes) pbf.writeMessage(1, writeNode, n);
  pbf.writeStringField(2, 'program');
  for (const t of graph.initializers ?? []) pbf.writeMessage(5, writeInitializer, t);
  for (const v of graph.inputs) pbf.writeMessage(11, writeValue, v);
  for (const v of graph.outputs) pbf.writeMessage(12, writeValue, v);
}

export function encodeModel(model: ModelProto): Uint8Array {
  const pbf = new PbfWriter();
  pbf.writeVarintField(1, 10);
  pbf.writeStringField(2, 'visedit');
  pbf.writeMessage(7, writeGraph, model);
  for (const [domain, version] of Object.entries(model.opsets)) {
    pbf.writeMessage(
      8,
      ([d, v]: [string, number], p) => {
        if (d !== '') p.writeStringField(1, d);
        p.writeVarintField(2, v);
      },
      [domain, version] as [string, number],
    );
  }
  return pbf.finish();
}

export function tensorBytes(t: Tensor): Uint8Array {
  return new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength);
}
