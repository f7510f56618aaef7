/**
 * The studio as a person uses it, on the real server with mini-llava, in a real Chromium: from dropping a picture to an edited, compared
 * and reverted answer; links, files, keys, both colour schemes, phone width, and how fast a pointer is followed.
 */
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { visedit } from '../cli/start.ts';
import { hasChromium, type Studio, startStudio } from './browser.ts';
import { largeTrace } from './large-trace.ts';

const seconds = 1000;

describe.skipIf(!hasChromium)('studio', () => {
  let studio: Studio;
  const folder = mkdtempSync(join(tmpdir(), 'visedit-studio-runs-'));
  const runs = join(folder, 'runs');
  /** A question that mini-llava gets wrong and VEAD corrects in all five ways. */
  let wrong: { image: string; prompt: string; target: string; index: number };

  beforeAll(async () => {
    mkdirSync(join(runs, 'mend'), { recursive: true });
    writeFileSync(
      join(runs, 'mend', 'manifest.json'),
      JSON.stringify({ identity: { model: { name: 'mini-llava' }, editor: 'mend', options: { steps: 100 } } }),
    );
    logSteps(1, 20);
    studio = await startStudio({ runs: [runs] });
    const answer = await fetch(`${studio.url}/v1/datasets/mini-world-vqa/records/6`);
    const { index, request } = (await answer.json()) as { index: number; request: typeof wrong };
    wrong = { ...request, index };
    // An evaluation to look at, of records that the studio has.
    const worlds = join(studio.dataDir, 'worlds');
    const world = join(worlds, readdirSync(worlds)[0]!);
    const words = [
      '--data',
      join(world, 'vqa_test.json'),
      '--images',
      join(world, 'images'),
      '--limit',
      '4',
      '--out',
      join(runs, 'vead'),
    ];
    const { code, stderr } = await visedit(['evaluate', '--model', 'mini-llava', '--editor', 'vead', ...words, '--quiet']);
    expect([code, stderr]).toEqual([0, '']);
  }, 180 * seconds);
  afterAll(async () => {
    await studio?.close();
    rmSync(folder, { recursive: true, force: true });
  }, 30 * seconds);

  /** What a training writes. */
  const logSteps = (from: number, to: number) => {
    const lines = Array.from({ length: to - from + 1 }, (_, i) => from + i).map((step) =>
      JSON.stringify({ step, loss: 10 / step, rate: 0.001, gradientNorm: 1, seconds: 1, smoothed: 12 / step }),
    );
    appendFileSync(join(runs, 'mend', 'log.jsonl'), `${lines.join('\n')}\n`);
  };

  const question = () => wrong.prompt.replace(' The answer is:', '');
  const asked = (page: string, more: Record<string, string> = {}) =>
    `${studio.url}/${page}?${new URLSearchParams({ model: 'mini-llava', picture: wrong.image, prompt: wrong.prompt, ...more })}`;
  const row = (page: Page, kind: string) => page.locator(`[data-kind="${kind}"]`);

  test(
    'the whole story: drop, ask, why, correct, compare, switch off, undo',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(studio.url);

      // A picture from the person's own files, dropped.
      const bytes = [...new Uint8Array(await (await fetch(studio.url + wrong.image)).arrayBuffer())];
      const transfer = await page.evaluateHandle((content) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], 'mine.png', { type: 'image/png' }));
        return data;
      }, bytes);
      await page.dispatchEvent('.drop', 'drop', { dataTransfer: transfer });
      await page.waitForURL(/picture=\/v1\/pictures\//);
      await page.getByLabel('Your question').fill(question());
      await page.keyboard.press('Enter');
      const token = page.locator('.answer button.token').first();
      await token.waitFor();
      expect(await token.locator('.token-text').textContent()).toBe('pizza');
      expect(await token.locator('.token-number').textContent()).toMatch(/^>?\d+%$/);

      // Why it was said.
      await page.getByRole('button', { name: 'Why this answer?' }).waitFor();
      await token.click();
      await page.getByRole('heading', { name: /Why “pizza”/ }).waitFor();
      await page.locator('.bars [aria-roledescription="bar"]').first().waitFor({ state: 'attached' });
      expect(await page.locator('.bars [aria-roledescription="bar"]').count()).toBe(2 * 7);
      expect(await page.locator('table.lens tbody tr').count()).toBe(7);
      expect(await page.locator('table.lens tbody tr').last().locator('td').first().textContent()).toContain('pizza');
      await page
        .locator('.film button')
        .nth(6)
        .waitFor({ timeout: 60 * seconds });
      expect(await page.locator('.explain li').allTextContents()).toHaveLength(3);

      // The correction, and what became of the five queries.
      await page.getByRole('link', { name: 'Correct', exact: true }).click();
      await page.getByLabel('What should it answer?').fill(wrong.target);
      await page.getByRole('button', { name: 'Correct', exact: true }).click();
      await row(page, 'reliability').waitFor({ timeout: 90 * seconds });
      for (const kind of ['reliability', 'textGenerality', 'modalGenerality']) {
        const [before, after] = await row(page, kind).locator('.token-text').allTextContents();
        expect([kind, before, after]).toEqual([kind, 'pizza', wrong.target]);
      }
      for (const kind of ['textLocality', 'modalLocality']) expect(await row(page, kind).getAttribute('data-good')).toBe('true');
      await page
        .locator('.three canvas')
        .nth(2)
        .waitFor({ timeout: 60 * seconds });

      // Switched off, it answers as before; on again; and the whole correction undone.
      const panel = page.getByRole('region', { name: 'Corrections in studio' });
      await panel.getByText(/^Took; \d of 7 questions around it/).waitFor();
      await panel.getByRole('switch').click({ force: true });
      await page.getByRole('heading', { name: /No correction is on/ }).waitFor({ timeout: 60 * seconds });
      expect(await row(page, 'reliability').locator('.token-text').allTextContents()).toEqual(['pizza', 'pizza']);
      await panel.getByRole('button', { name: 'Undo switching one off' }).click();
      await page.getByRole('heading', { name: /Before and after/ }).waitFor({ timeout: 60 * seconds });
      expect(await row(page, 'reliability').locator('.token-text').allTextContents()).toEqual(['pizza', wrong.target]);

      // Another wish for the same question takes the place of the first; the two are compared.
      await page.getByLabel('What should it answer?').fill('ladder');
      await page.getByRole('button', { name: 'Correct', exact: true }).click();
      await page.getByRole('button', { name: 'Correct, and switch the earlier one off' }).click();
      await panel
        .locator('.edit-list > li')
        .nth(1)
        .waitFor({ timeout: 60 * seconds });
      await expect.poll(() => panel.locator('li[data-on="true"]').count(), { timeout: 20 * seconds }).toBe(1);
      await page.getByRole('link', { name: 'Edits' }).click();
      await page.locator('.edit-list.large > li').nth(1).waitFor();
      for (const box of await page.getByRole('checkbox', { name: 'Compare' }).all()) await box.check();
      const compared = page.getByRole('region', { name: 'Two corrections compared' });
      await compared.locator('table').waitFor({ timeout: 60 * seconds });
      const first = await compared.locator('tbody tr').first().locator('.token-text').allTextContents();
      expect(first.slice(0, 2)).toEqual(['pizza', wrong.target]);

      // Everything taken back.
      const setsNow = async () => (await fetch(`${studio.url}/v1/sets`)).text();
      const undo = page.getByRole('button', { name: /^Undo/ });
      for (let left = 3; left > 0; left--) {
        const before = await setsNow();
        await undo.click();
        await expect.poll(setsNow, { timeout: 20 * seconds }).not.toBe(before);
      }
      const sets = JSON.parse(await setsNow()) as { data: { edits: { enabled: boolean }[] }[] };
      expect(sets.data.flatMap(({ edits }) => edits.filter(({ enabled }) => enabled))).toEqual([]);
      expect(problems).toEqual([]);
      await page.context().close();
    },
    300 * seconds,
  );

  test(
    'a link shows what its maker saw, and views come as files',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(asked('why', { token: '0', layer: '2' }));
      await page.locator('.film button[aria-pressed="true"]').waitFor({ timeout: 60 * seconds });
      expect(await page.locator('.film button[aria-pressed="true"]').textContent()).toBe('2');
      const save = async (region: string, item: string) => {
        await page
          .getByRole('region', { name: region })
          .getByRole('button', { name: /^Export/ })
          .click();
        const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('menuitem', { name: item }).click()]);
        await page.getByRole('menu').waitFor({ state: 'detached' });
        return readFileSync(await file.path());
      };
      const svg = (await save('Which layers speak for the word', 'SVG')).toString();
      expect(svg).toMatch(/^<svg /);
      expect(svg).toContain('Contribution to “pizza”');
      const png = await save('Where it looks', 'PNG');
      expect(png.subarray(1, 4).toString()).toBe('PNG');
      expect(png.length).toBeGreaterThan(5000);
      const csv = (await save('Where it looks', 'CSV')).toString().trim().split('\r\n');
      expect(csv[0]).toBe('layer,row,column,contribution');
      expect(csv).toHaveLength(1 + 7 * 36);
      const json = JSON.parse((await save('What it would say after each layer', 'JSON')).toString()) as { lens: unknown[] };
      expect(json.lens).toHaveLength(7);
      expect(problems).toEqual([]);
      await page.context().close();
    },
    120 * seconds,
  );

  test(
    'keys: views, layers, patches, the list of shortcuts; what has the focus is seen',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(asked('why', { layer: '2' }));
      await page
        .locator('.film button')
        .first()
        .waitFor({ timeout: 60 * seconds });
      await page.keyboard.press(']');
      await page.waitForURL(/layer=3/);
      await page.locator('.heat').focus();
      await page.keyboard.press('ArrowRight');
      await page.keyboard.press('ArrowDown');
      expect(await page.locator('[data-patch-profile] .reading').textContent()).toMatch(/^Patch in row 5, column 4: /);
      const outline = await page.locator('.heat').evaluate((element) => getComputedStyle(element).outlineStyle);
      expect(outline).toBe('solid');
      await page.keyboard.press('?');
      await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
      await page.keyboard.press('Escape');
      await page.keyboard.press('8');
      await page.waitForURL(/\/runs/);
      await page.keyboard.press('1');
      await page.keyboard.press('/');
      expect(await page.evaluate(() => document.activeElement?.tagName)).toBe('TEXTAREA');
      expect(problems).toEqual([]);
      await page.context().close();
    },
    90 * seconds,
  );

  test(
    'data and runs: searched, sorted, each row opens its record, which can be asked',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(`${studio.url}/data`);
      await page.locator('table.data tbody tr').nth(5).waitFor();
      await page.getByLabel('Search').fill('pizza');
      await page.waitForURL(/q=pizza/);
      await page.getByRole('button', { name: /^Must become/ }).click();
      await page.waitForURL(/sort=target/);
      await expect.poll(() => page.locator('th[aria-sort="ascending"]').textContent()).toContain('Must become');
      await page.locator('table.data .open a').first().click();
      await page.getByRole('heading', { name: /^Record/ }).waitFor();
      expect(await page.locator('.query-card').count()).toBeGreaterThanOrEqual(5);
      await page.getByRole('link', { name: 'Ask it' }).click();
      await page
        .locator('.answer button.token')
        .first()
        .waitFor({ timeout: 30 * seconds });

      await page.goto(`${studio.url}/runs`);
      await page.locator('table.data tbody tr', { hasText: 'evaluation' }).getByRole('link').click();
      await page.getByRole('region', { name: 'Measures' }).waitFor();
      await page.locator('table.data tbody tr').nth(2).getByRole('link').click();
      await page.locator('.query-card img').first().waitFor();
      expect(await page.locator('.query-card').count()).toBe(5);
      expect(problems).toEqual([]);
      await page.context().close();
    },
    90 * seconds,
  );

  test(
    'a training is watched while it runs',
    async () => {
      const { page, problems } = await studio.open();
      await page.goto(`${studio.url}/runs`);
      await page.locator('table.data tbody tr', { hasText: 'mend' }).getByRole('link').click();
      const curve = page.getByRole('region', { name: 'Training curve' });
      await curve.locator('svg').waitFor({ timeout: 30 * seconds });
      await expect.poll(() => curve.locator('.reading').textContent()).toBe('Step 20 of 100: loss 0.500');
      logSteps(21, 50);
      await expect
        .poll(() => curve.locator('.reading').textContent(), { timeout: 30 * seconds })
        .toBe('Step 50 of 100: loss 0.200');
      expect(problems).toEqual([]);
      await page.context().close();
    },
    90 * seconds,
  );

  describe.each(['light', 'dark'] as const)('%s', (colorScheme) => {
    test(
      'axe finds nothing on any view, and nothing is wider than a phone',
      async () => {
        const { page, problems } = await studio.open({ colorScheme, viewport: { width: 390, height: 844 } });
        const views: [address: string, ready: string][] = [
          [`${studio.url}/ask`, '.sample-grid img'],
          [asked('ask'), '.answer button.token'],
          [asked('why'), '.film canvas'],
          [asked('correct', { target: wrong.target }), 'details.five'],
          [`${studio.url}/edits`, '.edits'],
          [`${studio.url}/data`, 'table.data img'],
          [`${studio.url}/data/mini-world-vqa/${wrong.index}`, '.query-card img'],
          [`${studio.url}/runs`, 'table.data'],
          [`${studio.url}/runs/runs~vead`, '.measures'],
          [`${studio.url}/runs/runs~vead/1`, '.query-card img'],
          [`${studio.url}/runs/runs~mend`, '.figure svg'],
          [`${studio.url}/nothing`, 'h1'],
        ];
        const found: string[] = [];
        for (const [address, ready] of views) {
          await page.goto(address);
          await page
            .locator(ready)
            .first()
            .waitFor({ timeout: 60 * seconds });
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
      240 * seconds,
    );
  });

  test(
    'a patch under the pointer is marked everywhere within 100 ms, at 576 patches in 32 layers',
    async () => {
      const { page } = await studio.open();
      const trace = largeTrace({ layers: 32, grid: [24, 24], tokens: 3 });
      await trace.serve(page);
      await page.goto(asked('why', { layer: '16' }));
      await page.locator('.film button').nth(31).waitFor();
      await page.locator('.token-share').nth(2).waitFor({ state: 'attached' });
      await page.locator('.heat').scrollIntoViewIfNeeded();
      const control = await followTimes(page, await plainSquare(page));
      const times = await followTimes(page, { area: '.heat', words: '[data-patch-profile] .reading' });
      console.info(`hover to highlight: ${times.toFixed(1)} ms; a bare square of the same page: ${control.toFixed(1)} ms`);
      // What the machine's other programs take is in both.
      expect(times - control).toBeLessThan(100);
      await page.mouse.move(0, 0);
      const box = (await page.locator('.heat').boundingBox())!;
      await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
      // All marks do follow: the large map, every small one, the shares of all tokens.
      expect(await page.locator('.cell-mark:visible').count()).toBe(1 + 32);
      expect(await page.locator('.token-share:not(:empty)').count()).toBe(3);
      await page.context().close();
    },
    90 * seconds,
  );
});

/** Something that follows the pointer and costs nothing: what the browser and the machine take by themselves. */
async function plainSquare(page: Page): Promise<{ area: string; words: string }> {
  await page.evaluate(() => {
    const square = document.createElement('div');
    square.id = 'plain';
    square.style.cssText = 'position:fixed;left:0;top:0;width:300px;height:300px;z-index:99;background:#888';
    square.addEventListener('pointermove', ({ clientX, clientY }) => {
      square.textContent = `${clientX} ${clientY}`;
    });
    document.body.append(square);
  });
  return { area: '#plain', words: '#plain' };
}

/** From the event of a move over `area` to the frame that shows the changed `words`, milliseconds: the median of the quietest round. */
async function followTimes(page: Page, { area, words }: { area: string; words: string }): Promise<number> {
  await page.evaluate(
    ([area, words]) => {
      const times: number[] = [];
      Object.assign(window, { times });
      let moved = 0;
      document.querySelector(area!)!.addEventListener('pointermove', (event) => (moved ||= event.timeStamp), { capture: true });
      new MutationObserver(() => {
        const since = moved;
        moved = 0;
        requestAnimationFrame(() => setTimeout(() => since > 0 && times.push(performance.now() - since)));
      }).observe(document.querySelector(words!)!, { childList: true, characterData: true, subtree: true });
    },
    [area, words],
  );
  const box = (await page.locator(area).boundingBox())!;
  const medians: number[] = [];
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 20; i++) {
      const [column, row] = [(i * 7 + round) % 24, (i * 5 + round) % 24];
      await page.mouse.move(box.x + ((column + 0.5) / 24) * box.width, box.y + ((row + 0.5) / 24) * box.height);
      await page.waitForTimeout(20);
    }
    const times = await page.evaluate(() => (window as unknown as { times: number[] }).times.splice(0));
    expect(times.length).toBeGreaterThan(3);
    medians.push(times.sort((one, other) => one - other)[Math.floor(times.length / 2)]!);
  }
  await page.evaluate(() => document.querySelector('#plain')?.remove());
  return Math.min(...medians);
}
