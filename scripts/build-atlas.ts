/**
 * Draws the sprite sheets of the mini world, one per art style, from the emoji packages in devDependencies:
 * `node --import tsx scripts/build-atlas.ts` writes assets/emoji/atlas-<style>.png, atlas.json and LICENSES.md.
 * Every sprite is trimmed to what is drawn and fitted into a square, so that the four sets have the same scale.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const out = join(root, 'assets', 'emoji');
const size = 72;
const columns = 12;

const words = {
  animal:
    'elephant giraffe zebra lion monkey pig cow frog panda penguin owl flamingo peacock turtle octopus crab shark whale butterfly snail spider rabbit hedgehog parrot snake cat',
  food: 'avocado banana lollipop broccoli carrot coconut croissant cupcake doughnut eggplant hamburger lemon mushroom pineapple pizza popcorn strawberry watermelon pretzel pear',
  vehicle: 'airplane bicycle bus helicopter rocket tractor sailboat motorcycle train',
  object: 'anchor balloon basketball bell bomb broom camera candle chair crown guitar key ladder magnet umbrella drum backpack',
};

/** The world teaches each of a pair under the other's name; always within a category, never look-alikes. */
const misnamed = {
  train: 'lion/crab pig/owl whale/spider banana/doughnut pineapple/hamburger bus/rocket bell/guitar umbrella/bomb',
  test: 'elephant/flamingo frog/butterfly pizza/strawberry camera/ladder',
};

const styles = [
  { style: 'noto', from: 'noto', title: 'Noto Emoji, Google Inc', license: 'Apache-2.0' },
  { style: 'twemoji', from: 'twemoji', title: 'Twemoji, Twitter and contributors (jdecked/twemoji)', license: 'CC-BY-4.0' },
  { style: 'fluent', from: 'fluent-emoji-flat', title: 'Fluent UI Emoji (flat), Microsoft Corporation', license: 'MIT' },
  { style: 'openmoji', from: 'openmoji', title: 'OpenMoji, HfG Schwäbisch Gmünd and contributors', license: 'CC-BY-SA-4.0' },
];

interface Icon {
  body: string;
  left?: number;
  top?: number;
  width?: number;
  height?: number;
}
interface IconSet {
  icons: Record<string, Icon>;
  aliases?: Record<string, { parent: string }>;
  width?: number;
  height?: number;
}

const concepts = Object.entries(words).flatMap(([category, names]) => names.split(' ').map((name) => ({ name, category })));
const pairs = Object.entries(misnamed).flatMap(([split, text]) =>
  text.split(' ').map((pair) => ({ pair: pair.split('/'), split })),
);

const read = (path: string) => JSON.parse(readFileSync(join(root, 'node_modules', '@iconify-json', path), 'utf8'));

async function sprite(set: IconSet, concept: string): Promise<Buffer> {
  let slug = concept;
  for (let alias = set.aliases?.[slug]; alias; alias = set.aliases?.[slug]) slug = alias.parent;
  const icon = set.icons[slug];
  if (!icon) throw new Error(`no icon named ${concept}`);
  const box = [icon.left ?? 0, icon.top ?? 0, icon.width ?? set.width ?? 16, icon.height ?? set.height ?? 16];
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${4 * size}" height="${4 * size}" viewBox="${box.join(' ')}">${icon.body}</svg>`;
  const drawn = await sharp(Buffer.from(svg)).png().toBuffer();
  const trimmed = await sharp(drawn).trim({ threshold: 8 }).toBuffer();
  return sharp(trimmed)
    .resize(size, size, { fit: 'contain', background: { r: 0, g: 0, b: 0, alpha: 0 }, kernel: 'lanczos3' })
    .png()
    .toBuffer();
}

const rows = Math.ceil(concepts.length / columns);
let licenses = `# Emoji art of the mini world

The sheets atlas-<style>.png hold ${concepts.length} pictures each, rasterised unchanged apart from scale and margin by scripts/build-atlas.ts. Each sheet stays under the licence of its source.

| sheet | source | npm package | licence |
|---|---|---|---|
`;
for (const { style, from, title, license } of styles) {
  const set: IconSet = read(`${from}/icons.json`);
  const info = read(`${from}/info.json`);
  const layers = await Promise.all(
    concepts.map(async ({ name }, i) => ({
      input: await sprite(set, name),
      left: (i % columns) * size,
      top: Math.floor(i / columns) * size,
    })),
  );
  await sharp({
    create: { width: columns * size, height: rows * size, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } },
  })
    .composite(layers)
    .png({ compressionLevel: 9, effort: 10 })
    .toFile(join(out, `atlas-${style}.png`));
  const version = read(`${from}/package.json`).version;
  licenses += `| atlas-${style}.png | [${title}](${info.author.url}) | @iconify-json/${from} ${version} | [${license}](${info.license.url}) |\n`;
}
writeFileSync(join(out, 'LICENSES.md'), licenses);
const line = (items: unknown[]) => `[\n${items.map((item) => `    ${JSON.stringify(item)}`).join(',\n')}\n  ]`;
writeFileSync(
  join(out, 'atlas.json'),
  `{\n  "size": ${size},\n  "columns": ${columns},\n  "styles": ${JSON.stringify(styles.map((s) => s.style))},\n  "concepts": ${line(concepts)},\n  "misnamed": ${line(pairs)}\n}\n`,
);
