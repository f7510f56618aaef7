/** Views of the studio in a real Chromium, on a server with two models: what a person asks beside the story of studio.test.ts. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { AxeBuilder } from '@axe-core/playwright';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasChromium, type Studio, startStudio } from './browser.ts';

const seconds = 1000;
const root = fileURLToPath(new URL('../..', import.meta.url));

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
      // What stands above it grows while it loads.
      await page.locator('.film button').nth(6).waitFor();
      await page.locator('.bars [aria-roledescription="bar"]').first().waitFor({ state: 'attached' });
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
    240 * seconds,
  );

  test(
    'a correction is saved and loaded, or refused in words; its scope card is shown; an earlier state is brought back',
    async () => {
      const { page, problems } = await studio.open();
      const made = await fetch(`${studio.url}/v1/edits`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'mini-llava', set: 'studio', editor: 'vead', ...wrong }),
      });
      expect(made.status).toBe(201);
      await page.goto(`${studio.url}/edits?model=mini-llava`);
      const list = page.getByRole('region', { name: 'Corrections', exact: true });
      await list.locator('.scope-card summary').click();
      expect(await list.locator('[data-ok]').count()).toBe(7);
      const [file] = await Promise.all([page.waitForEvent('download'), list.getByRole('button', { name: 'Save file' }).click()]);
      const path = await file.path();

      const load = page.getByRole('region', { name: 'Load a correction' });
      await load.getByLabel('Into the set').fill('second');
      await load.locator('input[type=file]').setInputFiles(path);
      await load.getByText(/^Taken: .* → strawberry$/).waitFor({ timeout: 30 * seconds });
      await page.waitForURL(/set=second/);
      await expect.poll(() => list.locator('.edit-list > li').count()).toBe(1);

      // Weights of an editor are no edit; another model's edit is refused; what is no file of these, too.
      const refused = load.getByRole('alert');
      await load.locator('input[type=file]').setInputFiles(join(root, 'models/mini-llava/editors/vead-vqa.safetensors'));
      await refused.getByText('it holds weights of the editor vead').waitFor();
      await page.goto(`${studio.url}/edits?model=mini-blip2-opt`);
      const data = await page.evaluateHandle(
        (bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], 'edit.safetensors'));
          return transfer;
        },
        [...readFileSync(path)],
      );
      await load.waitFor();
      await page.dispatchEvent('.load', 'drop', { dataTransfer: data });
      await refused.getByText(/was made for mini-llava .* not for mini-blip2-opt/).waitFor();

      await page.goto(`${studio.url}/edits?model=mini-llava&set=studio`);
      await page.getByText('History', { exact: false }).click();
      await page.getByRole('button', { name: /Bring back .* after change 0/ }).click();
      await expect.poll(() => page.locator('.history li').first().textContent()).toMatch(/^back to the empty set/);
      await expect.poll(() => list.locator('.edit-list > li[data-on="true"]').count()).toBe(0);
      expect(problems.filter((problem) => !/status of 4\d\d/.test(problem))).toEqual([]);
      await page.context().close();
    },
    240 * seconds,
  );

  test(
    'a tool is run with its options, named by the address, cancelled and taken up again',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(asked('why'));
      const card = page.getByRole('region', { name: 'More ways to look' });
      await card.getByLabel('What to ask').selectOption('Which patches bring the answer back');
      await card.getByText('Options').click();
      await card.getByLabel('draws').fill('1000');
      await card.getByRole('button', { name: 'Run' }).click();
      await page.waitForURL(/tool=trace&.*tool\.draws=1000/);
      await card.getByRole('button', { name: 'Cancel' }).click();
      await card.getByText('Cancelled.').waitFor();
      await card.getByLabel('draws').fill('1');
      await card.getByRole('button', { name: 'Run' }).click();
      await card.locator('.figure > div > svg').waitFor({ timeout: 60 * seconds });

      // A link runs the tool with the options that it names; what must be given is asked for.
      // The connection to the work is lost once, and found again.
      await page.route('**/v1/jobs/*/events', (route) => route.abort('connectionreset'), { times: 1 });
      await page.goto(asked('why', { tool: 'knockout', 'tool.window': '3' }));
      await card.locator('.figure > div > svg').waitFor({ timeout: 60 * seconds });
      expect(await card.locator('.said li').first().textContent()).toMatch(/^Probability of “pizza” with all edges: /);
      await card.getByLabel('What to ask').selectOption('What it says when it is steered');
      expect(await card.getByRole('button', { name: 'Run' }).isDisabled()).toBe(true);
      await card.getByLabel('What to ask').selectOption('Where a correction should go in');
      await card.getByRole('button', { name: 'Run' }).click();
      await card.getByText(/^Insert after layer \d/).waitFor({ timeout: 60 * seconds });
      expect(problems.filter((problem) => !problem.includes('ERR_CONNECTION_RESET'))).toEqual([]);
      await page.context().close();
    },
    300 * seconds,
  );

  test(
    'a conversation with roles and two pictures is asked, gone on with, and named by its address',
    async () => {
      const { page, problems } = await studio.open();
      const other = '/v1/datasets/mini-world-vqa/pictures/3';
      const turns = [
        { role: 'user', text: 'What is at the top left?', pictures: [wrong.image] },
        { role: 'assistant', text: 'pizza', pictures: [] },
        { role: 'user', text: 'And here?', pictures: [other] },
      ];
      await page.goto(`${studio.url}/chat?model=mini-llava#${encodeURIComponent(JSON.stringify(turns))}`);
      const answer = page.getByRole('region', { name: 'Answer' });
      await answer.getByRole('button', { name: 'Go on' }).click();
      await page.getByRole('textbox', { name: 'Message 5, user' }).fill('What color is the background?');
      expect(await page.getByRole('textbox', { name: 'Message 4, assistant' }).inputValue()).not.toBe('');
      await page.getByRole('button', { name: 'Add a system message' }).click();
      await page.getByRole('textbox', { name: 'Message 1, system' }).fill('Answer in one word.');
      const [request] = await Promise.all([
        page.waitForRequest('**/v1/chat/completions'),
        page.getByRole('button', { name: 'Ask', exact: true }).click(),
      ]);
      const { messages } = request.postDataJSON() as { messages: { role: string; content: { type: string }[] }[] };
      expect(messages.map(({ role, content }) => [role, ...content.map(({ type }) => type)])).toEqual([
        ['system', 'text'],
        ['user', 'image_url', 'text'],
        ['assistant', 'text'],
        ['user', 'image_url', 'text'],
        ['assistant', 'text'],
        ['user', 'text'],
      ]);
      await answer
        .locator('.token')
        .first()
        .waitFor({ timeout: 30 * seconds });
      expect(decodeURIComponent(page.url())).toContain('Answer in one word.');
      // Another view, and back: what was written is still there.
      await page.getByRole('link', { name: 'Edits' }).click();
      await page.getByRole('link', { name: 'Chat' }).click();
      expect(await page.getByRole('textbox', { name: 'Message 1, system' }).inputValue()).toBe('Answer in one word.');
      expect(problems).toEqual([]);
      await page.context().close();
    },
    90 * seconds,
  );

  test(
    'two models answer side by side, each with its map',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(asked('compare'));
      for (const name of ['mini-llava', 'mini-blip2-opt']) {
        const card = page.getByRole('region', { name, exact: true });
        await card.locator('.heat').waitFor({ timeout: 60 * seconds });
        expect(await card.locator('.token').count()).toBeGreaterThan(0);
      }
      // A patch under the pointer is marked in both.
      await page.locator('.heat').first().hover();
      expect(await page.locator('.heat .cell-mark:visible').count()).toBe(2);
      await page.getByRole('checkbox', { name: 'mini-blip2-opt' }).uncheck();
      await page.waitForURL(/models=mini-llava$/);
      expect(problems).toEqual([]);
      await page.context().close();
    },
    240 * seconds,
  );

  test(
    'odd inputs: a long answer does not move under the pointer, narrow pictures are shown or refused in words, maps that are not causal say so',
    async () => {
      const { page, problems } = await studio.open({ viewport: { width: 390, height: 844 } });
      await page.route('**/v1/chat/completions', (route) => {
        const chunk = (token: string, id: number) => ({
          choices: [{ finish_reason: null, logprobs: { content: [{ token, token_id: id, logprob: -0.1, top_logprobs: [] }] } }],
        });
        const words = Array.from({ length: 256 }, (_, i) => (i % 9 === 8 ? ' incomprehensibilities' : ' word'));
        const body = [...words.map(chunk).map((one) => JSON.stringify(one)), '[DONE]']
          .map((data) => `data: ${data}\n\n`)
          .join('');
        return route.fulfill({ status: 200, contentType: 'text/event-stream', body });
      });
      await page.route('**/v1/models', async (route) => {
        const answer = (await (await route.fetch()).json()) as { data: { visedit: { both_ways: boolean } }[] };
        for (const { visedit } of answer.data) visedit.both_ways = true;
        return route.fulfill({ json: answer });
      });
      await page.goto(asked('ask'));
      const tokens = page.locator('.answer .token');
      await tokens.nth(255).waitFor();
      // By the first one: what is above may still be loaded. Whole pixels are rounded.
      const places = () =>
        tokens.evaluateAll((all) => {
          const [first] = all as HTMLElement[];
          return (all as HTMLElement[]).flatMap((one) => [one.offsetLeft, one.offsetTop - first!.offsetTop]);
        });
      const before = await places();
      await tokens.nth(100).hover();
      const moved = (await places()).map((place, i) => Math.abs(place - before[i]!));
      expect(Math.max(...moved)).toBeLessThan(3);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(390);
      await page.goto(asked('why'));
      await page.getByText('Not causal:').first().waitFor();

      const narrow = async (width: number, height: number) =>
        page.locator('.drop input[type=file]').setInputFiles({
          ...{ name: 'narrow.png', mimeType: 'image/png' },
          buffer: await sharp({ create: { width, height, channels: 3, background: '#c33' } })
            .png()
            .toBuffer(),
        });
      await page.goto(`${studio.url}/ask`);
      await narrow(1, 5000);
      await page.getByText('The picture is 1 by 5000; at most 100 to 1 is allowed.').waitFor();
      await narrow(50, 5000);
      await page.waitForURL(/picture=/);
      await page.locator('.drop img').waitFor();
      expect((await page.locator('.drop').boundingBox())!.height).toBeLessThan(844);
      expect(problems.filter((problem) => !/status of 4\d\d/.test(problem))).toEqual([]);
      await page.context().close();
    },
    240 * seconds,
  );

  test.each(['light', 'dark'] as const)(
    'axe finds nothing, and nothing is wider than a phone: %s',
    async (colorScheme) => {
      const { page, problems } = await studio.open({ colorScheme, viewport: { width: 390, height: 844 } });
      const found: string[] = [];
      for (const [address, ready] of [
        [asked('why', { hide: '0,0,0.5,0.5', tool: 'knockout' }), '[data-hidden] .token'],
        [
          `${studio.url}/chat#${encodeURIComponent(JSON.stringify([{ role: 'user', text: 'Hello?', pictures: [wrong.image] }]))}`,
          '.chat .token',
        ],
        [asked('compare'), '.heat'],
        [`${studio.url}/edits?model=mini-llava&set=studio`, '.history'],
      ] as const) {
        await page.goto(address);
        await page
          .locator(ready)
          .first()
          .waitFor({ state: 'attached', timeout: 60 * seconds });
        for (const fold of await page.locator('main summary').all()) await fold.click();
        await expect.poll(() => page.locator('.working').count(), { timeout: 60 * seconds }).toBe(0);
        const { violations } = await new AxeBuilder({ page }).analyze();
        for (const { id, nodes } of violations)
          found.push(`${address} ${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(' | ')}`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        if (wide !== 390) found.push(`${address} is ${wide} wide`);
      }
      expect(found).toEqual([]);
      expect(problems).toEqual([]);
      await page.context().close();
    },
    300 * seconds,
  );
});
