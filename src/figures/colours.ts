/**
 * Colours of the figures. Scales are perceptually uniform, keep their order in grey print and for colour-blind readers
 * (viridis, inferno); the paper's red-blue is there for comparison. Categories are those of Okabe and Ito (2008).
 */

/** A colour scale by its name. */
export type ScaleName = 'viridis' | 'inferno' | 'red-blue';
/** Colour scales that stay ordered in grey and for colour-blind readers (red-blue: about zero). */
export const scaleNames: readonly ScaleName[] = ['viridis', 'inferno', 'red-blue'];

// Every sixteenth of each scale, RGB: viridis and inferno (van der Walt, Smith, Firing; CC0), ColorBrewer's RdBu turned round.
const stops: Record<ScaleName, string> = {
  viridis:
    '440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b f0e51c fde725',
  inferno:
    '000004 0c0826 240c4f 420a68 5d126e 781c6d 932667 ae305c c73e4c dd513a ed6925 f8850f fca50a fac62d f2e661 f4f182 fcffa4',
  'red-blue':
    '053061 134c87 246aae 3d8bbf 67a9cf 98c8e0 c2ddec e0ecf3 f7f7f7 fae4d6 fbccb4 f5a886 e58267 d05447 b5202e 8e0f26 67001f',
};

const parsed = new Map<ScaleName, number[][]>();

/** The colour [r, g, b] at `t` in [0, 1] (values outside are cut). */
export function scaleColour(name: ScaleName, t: number): [number, number, number] {
  let table = parsed.get(name);
  if (!table) {
    table = stops[name].split(' ').map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
    parsed.set(name, table);
  }
  const at = Math.min(1, Math.max(0, t)) * (table.length - 1);
  const below = Math.min(Math.floor(at), table.length - 2);
  const mix = (channel: number) => {
    const from = table[below]?.[channel] ?? 0;
    const to = table[below + 1]?.[channel] ?? 0;
    return Math.round(from + (to - from) * (at - below));
  };
  return [mix(0), mix(1), mix(2)];
}

export const ink = '#1f2328';
export const faint = '#57606a';
export const rule = '#d0d7de';
export const good = '#1a7f37';
export const bad = '#b3261e';

/** For lines and bars, in this order: blue, orange, green, purple, vermilion, sky, black. */
export const categories = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#d55e00', '#56b4e9', '#000000'] as const;
