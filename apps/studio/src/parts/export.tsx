/** Every view as a file: its drawing as SVG or PNG, its numbers as CSV or JSON. */
import { Button, Menu } from '@mantine/core';
import { figureJson } from 'visedit/figures';
import regular from '../../../../src/figures/fonts/inter-regular.ttf?url';
import semibold from '../../../../src/figures/fonts/inter-semibold.ttf?url';
import { report } from '../app/notes.ts';

export interface Exports {
  /** File name without its ending. */
  name: string;
  svg?: () => Promise<string>;
  /** Head and rows. */
  csv?: () => { head: readonly string[]; rows: readonly (readonly (string | number | boolean | null | undefined)[])[] };
  json?: () => unknown;
}

export function ExportMenu({ name, svg, csv, json }: Exports) {
  const save = (ending: string, make: () => Promise<Blob> | Blob) => () => {
    Promise.resolve()
      .then(make)
      .then((file) => download(`${name}.${ending}`, file))
      .catch((error: unknown) => report(error, 'The file could not be made.'));
  };
  const text = (content: string, type: string) => new Blob([content], { type });
  return (
    <Menu position="bottom-end" shadow="md">
      <Menu.Target>
        <Button variant="default" size="xs" className="keep" aria-label={`Export ${name}`}>
          Export
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        {svg && <Menu.Item onClick={save('svg', async () => text(await svg(), 'image/svg+xml'))}>Drawing, SVG</Menu.Item>}
        {svg && <Menu.Item onClick={save('png', async () => toPng(await svg()))}>Drawing, PNG</Menu.Item>}
        {csv && <Menu.Item onClick={save('csv', () => text(toCsv(csv()), 'text/csv'))}>Numbers, CSV</Menu.Item>}
        {json && (
          <Menu.Item onClick={save('json', () => text(`${JSON.stringify(json(), figureJson, 2)}\n`, 'application/json'))}>
            Data, JSON
          </Menu.Item>
        )}
      </Menu.Dropdown>
    </Menu>
  );
}

export function download(name: string, file: Blob): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** RFC 4180. A cell that a table program would take for a formula is kept from it by an apostrophe. */
function toCsv({ head, rows }: ReturnType<NonNullable<Exports['csv']>>): string {
  const cell = (value: string | number | boolean | null | undefined): string => {
    if (typeof value === 'number') return String(value);
    const plain = String(value ?? '');
    const safe = /^[=+\-@\t\r]/.test(plain) ? `'${plain}` : plain;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [head, ...rows].map((row) => `${row.map(cell).join(',')}\r\n`).join('');
}

async function toPng(svg: string): Promise<Blob> {
  // A picture in a picture cannot load anything: the font goes along in it.
  const faces = await Promise.all([fontFace(regular, 400), fontFace(semibold, 600)]);
  const withFonts = svg.replace(/<svg\b[^>]*>/, (tag) => `${tag}<style>${faces.join('')}</style>`);
  const image = new Image();
  const url = URL.createObjectURL(new Blob([withFonts], { type: 'image/svg+xml' }));
  try {
    image.src = url;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = 3 * image.naturalWidth;
    canvas.height = 3 * image.naturalHeight;
    canvas.getContext('2d')!.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) => {
      canvas.toBlob((file) => (file ? resolve(file) : reject(new Error('The drawing is too large for a PNG: export SVG.'))));
    });
  } finally {
    URL.revokeObjectURL(url);
  }
}

async function fontFace(address: string, weight: number): Promise<string> {
  const bytes = new Uint8Array(await (await fetch(address)).arrayBuffer());
  let binary = '';
  for (let at = 0; at < bytes.length; at += 8192) binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return `@font-face{font-family:Inter;font-weight:${weight};src:url(data:font/ttf;base64,${btoa(binary)})}`;
}
