/** Views of the studio in a real Chromium, on a server with two models: what a person asks beside the story of studio.test.ts. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasChromium, type Studio, startStudio } from './browser.ts';

const seconds = 1000;

describe.skipIf(!hasChromium)('views', () => {
  let studio: Studio;
  let wrong: { image: string; prompt: string; target: string };

  beforeAll(async () => {
    studio = await startStudio({ models: ['mini-llava', 'mini-blip2-opt'] });
    const answer = await fetch(`${studio.url}/v1/datasets/mini-world-vqa/records/6`);
    wrong = ((await answer.json()) as { request: typeof wrong }).request;
  }, 180 * seconds);
  afterAll(() => studio?.close(), 30 * seconds);

  const asked = (page: string, more: Record<string, string> = {}) =>
    `${studio.url}/${page}?${new URLSearchParams({ model: 'mini-llava', picture: wrong.image, prompt: wrong.prompt, ...more })}`;

  test(
    'a part of the picture is hidden by drag or by keys, and the answer asked again',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(asked('why'));
      const card = page.getByRole('region', { name: 'Hide a part and ask again' });
      const pick = card.locator('.pick');
      const shares = card.locator('.share b');
      await pick.scrollIntoViewIfNeeded();
      const box = (await pick.boundingBox())!;
      await page.mouse.move(box.x + 1, box.y + 1);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2, { steps: 3 });
      await page.mouse.up();
      await page.waitForURL(/hide=0\.\d+,0\.\d+,0\.\d+,0\.\d+/);
      await card
        .locator('[data-hidden] .token')
        .first()
        .waitFor({ timeout: 60 * seconds });
      await expect.poll(() => shares.allTextContents(), { timeout: 60 * seconds }).toEqual(['>99%', '<1%']);

      // What it hangs on is there when only that is shown.
      await card.getByText('Hide the rest').click();
      await expect.poll(() => shares.nth(1).textContent(), { timeout: 60 * seconds }).toBe('>99%');
      await pick.focus();
      await page.keyboard.press('Escape');
      await page.waitForURL((url) => !url.searchParams.has('hide'));
      await page.keyboard.press('ArrowRight');
      await page.keyboard.press('Shift+ArrowDown');
      await page.waitForURL(/hide=0\.375,0\.375,0\.25,0\.3/);
      expect(problems).toEqual([]);
      await page.context().close();
    },
    120 * seconds,
  );
});
