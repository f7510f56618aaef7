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

/** Bytes of the initializers of an emitted program by name, those that lie in files among them. */
export function initializers(bytes: Uint8Array): Map<string, number> {
  const found = new Map<string, number>();
  const tensor = (pbf: PbfReader): void => {
    let [name, size] = ['', 0];
    pbf.readMessage((tag, _, inner) => {
      if (tag === 8) name = inner.readString();
      if (tag === 9) size = inner.readBytes().length;
      if (tag === 13) {
        let [key, value] = ['', ''];
        inner.readMessage((field, __, entry) => {
          if (field === 1) key = entry.readString();
          if (field === 2) value = entry.readString();
        }, undefined);
        if (key === 'length') size = Number(value);
      }
    }, undefined);
    found.set(name, size);
  };
  const graph = (tag: number, _: unknown, pbf: PbfReader): void => {
    if (tag === 5) tensor(pbf);
  };
  new PbfReader(bytes).readFields((tag, _, pbf) => tag === 7 && pbf.readMessage(graph, undefined), undefined);
  return found;
}
