/**
 * A canary on live traffic, by the page: ten percent of two thousand sessions, then thirty, then everybody, then back; with the history.
 *
 *   SEGUE_PAGE     the page with its #token=…; the policy `country` is there, 1 decides and lets in, 2 refuses with 451
 *   SEGUE_EDGES    the edges' URLs, with a space between them
 *   SEGUE_TICKETS  a file: paths that listeners open, one for each session
 */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';
import { launch, watch } from './chromium.mjs';

const WITHIN_MS = 60_000;
const AT_ONCE = 8;

describe('a canary', { timeout: 300_000 }, () => {
  let browser, page, faults, edges, tickets, tenth;
  const agent = new http.Agent({ keepAlive: true, maxSockets: AT_ONCE });

  before(async () => {
    edges = process.env.SEGUE_EDGES.split(' ');
    tickets = JSON.parse(await readFile(process.env.SEGUE_TICKETS, 'utf8'));
    browser = await launch();
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
    page = await context.newPage();
    faults = watch(page);
    await page.goto(process.env.SEGUE_PAGE);
    await page.getByTestId('tab-policies').click();
    await page.locator('[data-policy=country]').getByRole('link').click();
    await version('2').waitFor();
  });

  after(async () => {
    agent.destroy();
    await browser?.close();
  });

  afterEach(() => assert.deepEqual(faults.take(), [], 'the page complained'));

  const version = (name) => page.locator(`[data-testid=version][data-version="${name}"]`);
  const shown = (id, text) => page.getByTestId(id).filter({ hasText: text }).waitFor({ timeout: WITHIN_MS });

  const status = (url) =>
    new Promise((resolve, reject) => {
      http.get(url, { agent }, (answer) => answer.resume().on('end', () => resolve(answer.statusCode))).on('error', reject);
    });

  /** The sessions about which version 2 decides, the same on every edge. */
  async function refused() {
    const found = new Set();
    const ask = async (worker) => {
      for (let place = worker; place < tickets.length; place += AT_ONCE) {
        const said = [];
        for (const edge of edges) said.push(await status(edge + tickets[place]));
        assert.ok([200, 451].includes(said[0]) && said.every((one) => one === said[0]), `session ${place} is not on one side: ${said}`);
        if (said[0] === 451) found.add(place);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, (_, worker) => ask(worker)));
    return found;
  }

  /** Waits until both edges have taken over what the page shows as done. */
  async function settles(most, least) {
    let share;
    for (const end = Date.now() + WITHIN_MS; Date.now() < end; ) {
      const found = await refused().catch(() => null);
      share = found && (found.size * 100) / tickets.length;
      if (found && share >= least && share <= most) return found;
    }
    assert.fail(`${share} % are refused, not ${least} to ${most}`);
  }

  async function canary(percent) {
    await version('2').getByTestId('canary').click();
    await page.getByTestId('number').fill(String(percent));
    await page.getByTestId('confirm').click();
    await shown('policy-tried', new RegExp(`^2 for ${percent} %$`));
  }

  async function swap(button) {
    await button.click();
    await page.getByTestId('confirm').click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
  }

  test('meets a tenth of the sessions, the same ones each time', async () => {
    assert.equal(tickets.length >= 2000, true);
    await canary(10);
    tenth = await settles(12, 8);
    assert.deepEqual([...(await refused())].sort(), [...tenth].sort());
  });

  test('is widened, and who was in it stays', async () => {
    await canary(30);
    const third = await settles(33, 27);
    assert.deepEqual([...tenth].filter((place) => !third.has(place)), []);
  });

  test('decides for everybody, and is taken back', async () => {
    await swap(version('2').getByTestId('activate'));
    await shown('policy-active', /^2$/);
    await settles(100, 100);
    await swap(page.getByTestId('rollback'));
    await shown('policy-active', /^1$/);
    await settles(0, 0);
  });

  test('the history shows each step', async () => {
    const said = await page.getByTestId('history').innerText();
    const steps = [/Rolled back to 1 from 2/, /Activated 2, before 1/, /Let 2 decide for 30 %/, /Let 2 decide for 10 %/];
    const places = steps.map((words) => said.search(words));
    assert.ok(places.every((place, number) => place >= 0 && (number === 0 || place > places[number - 1])), `${places}\n${said}`);
  });
});
