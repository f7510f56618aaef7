/** The ONNX operators of an emitted program, those within loops among them, as often as they stand there. */
import { PbfReader } from 'pbf';

export function operators(bytes: Uint8Array): string[] {
  const found: string[] = [];
  const graph = (tag: number, _: unknown, pbf: PbfReader): void => {
    if (tag === 1) pbf.readMessage(node, undefined);
  };
  const node = (tag: number, _: unknown, pbf: PbfReader): void => {
    if (tag === 4) found.push(pbf.readString());
    // an attribute's graph
    if (tag === 5) pbf.readMessage((field, _, inner) => field === 6 && inner.readMessage(graph, undefined), undefined);
  };
  new PbfReader(bytes).readFields((tag, _, pbf) => tag === 7 && pbf.readMessage(graph, undefined), undefined);
  return found;
}

export const count = (bytes: Uint8Array, op: string): number => operators(bytes).filter((one) => one === op).length;
