/** One accent (teal, apart from the charts' blue and orange), the figures' font, and greys that keep their contrast in both schemes. */
import { type CSSVariablesResolver, createTheme, type MantineColorsTuple } from '@mantine/core';

const teal: MantineColorsTuple = [
  '#e7f5f3',
  '#d2ebe7',
  '#a6d8d0',
  '#78c5ba',
  '#52b4a6',
  '#34a193',
  '#178a7d',
  '#0b7268',
  '#085c54',
  '#05443e',
];

export const theme = createTheme({
  colors: { teal },
  primaryColor: 'teal',
  primaryShade: { light: 7, dark: 7 },
  fontFamily: 'Inter, system-ui, -apple-system, "Segoe UI", sans-serif',
  fontFamilyMonospace: 'ui-monospace, SFMono-Regular, Menlo, Consolas, monospace',
  defaultRadius: 'md',
  cursorType: 'pointer',
  headings: { fontWeight: '600' },
  focusRing: 'auto',
});

export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    '--mantine-color-dimmed': '#57606a',
    '--mantine-color-placeholder': '#6b747d',
    '--mantine-color-error': '#b3261e',
    '--page': '#f6f8f9',
    '--card': '#ffffff',
    '--line': '#dde2e6',
    '--accent': '#0b7268',
    '--accent-soft': '#e1f1ee',
    '--ink': '#1f2328',
    '--faint': '#57606a',
    '--rule': '#d0d7de',
    '--grid': '#e6e9ec',
    '--good': '#1a7f37',
    '--bad': '#b3261e',
  },
  dark: {
    '--mantine-color-dimmed': '#a3abb4',
    '--mantine-color-placeholder': '#98a1aa',
    '--mantine-color-error': '#ff8a80',
    '--mantine-color-body': '#14171a',
    '--mantine-color-teal-light': '#17322f',
    '--mantine-color-teal-light-hover': '#1d3f3b',
    '--mantine-color-teal-light-color': '#8fd9cd',
    '--page': '#14171a',
    '--card': '#1c2024',
    '--line': '#333a41',
    '--accent': '#5cc3b5',
    '--accent-soft': '#17322f',
    '--ink': '#e6e9ec',
    '--faint': '#a3abb4',
    '--rule': '#414a52',
    '--grid': '#2b3137',
    '--good': '#57c46e',
    '--bad': '#ff8a80',
  },
});
