/**
 * Draws the pictures of docs/studio.md: `node --import tsx test/studio/pictures.ts RUNS [NAME...]`, RUNS a folder with an evaluation and a training,
 * NAME those to draw anew.
 * Only what a person sees: each page at its own height, few colours, so that a picture stays small.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import sharp from 'sharp';
import { startStudio } from './browser.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const out = join(root, 'docs/pictures/studio');
mkdirSync(out, { recursive: true });
const [runs, ...named] = process.argv.slice(2);
if (runs === undefined) throw new Error('give the folder with an evaluation and a training to show');
const wanted = (...names: string[]): boolean => named.length === 0 || names.some((name) => named.includes(name));
const studio = await startStudio({ runs: [runs], models: ['mini-llava', 'mini-blip2-opt'] });

async function save(page: Page, name: string, tallest = 1400): Promise<void> {
  await page.waitForLoadState('networkidle');
  const { width } = page.viewportSize()!;
  const height = Math.min(tallest, await page.evaluate(() => document.documentElement.scrollHeight));
  await page.setViewportSize({ width, height });
  await page.waitForTimeout(600);
  const picture = await sharp(await page.screenshot())
    .png({ palette: true, quality: 88, effort: 10 })
    .toFile(join(out, `${name}.png`));
  console.log(name, width, height, `${Math.round(picture.size / 1024)} KiB`);
  await page.setViewportSize({ width, height: 900 });
}

const record = (await (await fetch(`${studio.url}/v1/datasets/mini-world-vqa/records/6`)).json()) as {
  request: { image: string; prompt: string; target: string };
};
const { image, prompt, target } = record.request;
const asked = (view: string, more: Record<string, string> = {}) =>
  `${studio.url}/${view}?${new URLSearchParams({ model: 'mini-llava', picture: image, prompt, ...more })}`;

const { page } = await studio.open({ deviceScaleFactor: 1 });
if (wanted('ask')) {
  await page.goto(asked('ask'));
  await page.getByRole('button', { name: 'Why this answer?' }).waitFor();
  await save(page, 'ask');
}

if (wanted('why')) {
  await page.goto(asked('why', { hide: '0,0,0.5,0.5', tool: 'knockout' }));
  await page.locator('[data-hidden] .token').waitFor({ timeout: 120_000 });
  await page.locator('.scroll .figure svg').first().waitFor({ timeout: 120_000 });
  await page.locator('.film canvas').first().waitFor({ timeout: 120_000 });
  await page.locator('.bars svg').waitFor();
  await page.setViewportSize({ width: 1280, height: 2600 });
  const box = (await page.locator('.heat').boundingBox())!;
  await page.mouse.move(box.x + 0.25 * box.width, box.y + 0.25 * box.height);
  await save(page, 'why', 2600);
}

if (wanted('correct', 'edits')) {
  await page.goto(asked('correct'));
  await page.getByLabel('What should it answer?').fill(target);
  await page.getByRole('button', { name: 'Correct', exact: true }).click();
  await page.locator('.three canvas').nth(2).waitFor({ timeout: 240_000 });
  await page.locator('.outcome').waitFor();
  if (wanted('correct')) await save(page, 'correct', 1700);

  await page.getByLabel('What should it answer?').fill('ladder');
  await page.getByRole('button', { name: 'Correct', exact: true }).click();
  await page.getByRole('button', { name: 'Correct, and switch the earlier one off' }).click();
  await page.locator('.edit-list li[data-on="false"]').waitFor({ timeout: 240_000 });
  await page.goto(asked('edits'));
  await page.locator('.edit-list.large > li').nth(1).waitFor();
  for (const choice of await page.getByRole('checkbox', { name: 'Compare' }).all()) await choice.check();
  await page.locator('.outcome.four').waitFor({ timeout: 240_000 });
  await page.locator('.scope-card summary').first().click();
  await page.locator('details.fold summary').click();
  if (wanted('edits')) await save(page, 'edits', 1700);
}

if (wanted('chat')) {
  const turns = [
    { role: 'user', text: 'What is at the top left?', pictures: [image] },
    { role: 'assistant', text: 'pizza', pictures: [] },
    { role: 'user', text: 'And here?', pictures: ['/v1/datasets/mini-world-vqa/pictures/3'] },
  ];
  await page.goto(`${studio.url}/chat?model=mini-llava#${encodeURIComponent(JSON.stringify(turns))}`);
  await page.getByRole('button', { name: 'Go on' }).waitFor({ timeout: 120_000 });
  await save(page, 'chat', 905);
}

if (wanted('compare')) {
  await page.goto(asked('compare', { models: 'mini-llava,mini-blip2-opt' }));
  await page.locator('.heat').nth(1).waitFor({ timeout: 120_000 });
  await save(page, 'compare');
}

if (wanted('data', 'record', 'runs', 'evaluation', 'training')) {
  await page.goto(`${studio.url}/data`);
  await page.locator('table.data img').nth(10).waitFor();
  await save(page, 'data', 900);
  await page.goto(`${studio.url}/data/mini-world-vqa/6`);
  await page.locator('.query-card img').first().waitFor();
  await save(page, 'record');
  for (const [name, kind, ready] of [
    ['evaluation', 'evaluation', '.measures'],
    ['training', 'training', '.figure svg'],
  ] as const) {
    await page.goto(`${studio.url}/runs`);
    await page.locator('table.data a').first().waitFor();
    if (name === 'evaluation') await save(page, 'runs');
    await page.locator('table.data tr', { hasText: kind }).first().getByRole('link').click();
    await page.locator(ready).waitFor({ timeout: 60_000 });
    await save(page, name, 1000);
  }
}

if (wanted('why-phone')) {
  const phone = await studio.open({ colorScheme: 'dark', viewport: { width: 390, height: 844 }, deviceScaleFactor: 1 });
  await phone.page.goto(asked('why'));
  await phone.page.locator('.film canvas').first().waitFor({ timeout: 120_000 });
  await phone.page.locator('.bars svg').waitFor();
  await save(phone.page, 'why-phone', 1500);
}
await studio.close();
