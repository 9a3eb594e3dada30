/**
 * The policies of the console, driven as an operator would: tried as a shadow, let decide, taken back, each after a confirmation.
 *
 *   SEGUE_PAGE    the page with its #token=…, or SEGUE_BIN to start `segue demo`
 *   SEGUE_POLICY  the ready-made policy `country`, built
 *   SEGUE_SHOTS   a folder for screenshots (optional)
 */

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { launch, watch } from './chromium.mjs';
import { addTrack, call, openSegue, wav } from './segue.mjs';

const WITHIN_MS = 60_000;

describe('policies', { timeout: 300_000 }, () => {
  let segue, browser, page, faults, folder, url;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'segue-policies-test-'));
    segue = await openSegue();
    const song = path.join(folder, 'tone.wav');
    await writeFile(song, wav());
    const track = await addTrack(segue, song);
    ({ url } = await call(segue, 'POST', `/v1/tracks/${track.track}/tickets`, {}));
    // Addresses here have no country: the first version lets them in, the second does not.
    await upload('1', { allow: ['DE'], unknown: 'allow' });
    await upload('2', { allow: ['DE'] });
    browser = await launch();
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light' });
    page = await context.newPage();
    faults = watch(page);
    await page.goto(segue.page);
  });

  after(async () => {
    await browser?.close();
    await segue?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  afterEach(() => assert.deepEqual(faults.take(), [], 'the page complained'));

  async function upload(version, config) {
    const form = new FormData();
    form.set('component', new Blob([await readFile(process.env.SEGUE_POLICY)]));
    form.set('config', JSON.stringify(config));
    form.set('version', version);
    const headers = { authorization: `Bearer ${segue.token}` };
    const response = await fetch(new URL('/v1/policies/country/versions', segue.control), { method: 'POST', headers, body: form });
    assert.equal(response.status, 201, await response.text());
  }

  const version = (name) => page.locator(`[data-testid=version][data-version="${name}"]`);
  const shown = (id, text) => page.getByTestId(id).filter({ hasText: text }).waitFor({ timeout: WITHIN_MS });

  /** Presses a button, reads what will happen, and says yes. */
  async function swap(button, says) {
    await button.click();
    const dialog = page.getByRole('dialog');
    const text = await dialog.innerText();
    assert.match(text, says);
    await page.getByTestId('confirm').click();
    await dialog.waitFor({ state: 'detached' });
  }

  /** Asks the edge until it answers so. */
  async function answers(status) {
    let last;
    for (const end = Date.now() + WITHIN_MS; Date.now() < end; ) {
      last = (await fetch(url)).status;
      if (last === status) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail(`still ${last}, not ${status}`);
  }

  async function shoot(name) {
    if (!process.env.SEGUE_SHOTS) return;
    await mkdir(process.env.SEGUE_SHOTS, { recursive: true });
    await page.screenshot({ path: path.join(process.env.SEGUE_SHOTS, `${name}.png`), fullPage: true });
  }

  test('the list leads to the policy and its versions', async () => {
    await page.getByTestId('tab-policies').click();
    await page.locator('[data-policy=country]').getByRole('link').click();
    await version('2').waitFor();
    assert.equal(await version('1').getAttribute('data-state'), 'checked');
    assert.equal(await page.getByTestId('rollback').isVisible(), false, 'there is nothing to roll back to');
  });

  test('a question that is called off changes nothing', async () => {
    await version('1').getByTestId('activate').click();
    await page.getByRole('button', { name: 'Cancel' }).click();
    assert.equal((await call(segue, 'GET', '/v1/policies/country')).active, null);
  });

  test('a version is activated, and the edge stands on it', async () => {
    await swap(version('1').getByTestId('activate'), /Let country 1 decide for everybody\?.*no song stops/s);
    await shown('policy-active', /^1$/);
    await shown('policy-edges', /^1 of 1$/);
    await answers(200);
  });

  test('a shadow is not heeded, and the page says what it would have said', async () => {
    await swap(version('2').getByTestId('shadow'), /asked beside 1 and is not heeded/);
    await version('2').and(page.locator('[data-state=shadow]')).waitFor({ timeout: WITHIN_MS });
    await version('2').filter({ hasText: /ready on 1 of 1/ }).waitFor({ timeout: WITHIN_MS });
    for (let asked = 0; asked < 20; asked += 1) await answers(200);
    await shown('diff', /2 would newly deny \d+ \(100 %\)/);
    await page.getByTestId('pair').first().click();
    await page.getByTestId('pair').getByText('/master.m3u8').first().waitFor();
    await page.waitForFunction(() => Number(document.querySelector('[data-testid=verdicts]').dataset.calls) >= 20, null, { timeout: WITHIN_MS });
    await shoot('policy-shadow');
  });

  test('a canary has the share that was given, and a rollback ends it', async () => {
    await version('2').getByTestId('canary').click();
    await page.getByTestId('number').fill('25');
    await page.getByTestId('confirm').click();
    await shown('policy-tried', /^2 for 25 %$/);
    assert.equal((await call(segue, 'GET', '/v1/policies/country')).candidate.percent, 25);
    await swap(page.getByTestId('rollback'), /End the canary of country 2\?.*1 decides for everybody/s);
    await shown('policy-tried', /^none$/);
    await answers(200);
  });

  test('what was activated is taken back by one rollback', async () => {
    await swap(version('2').getByTestId('activate'), /takes the place of 1/);
    await shown('policy-active', /^2$/);
    await answers(451);
    await swap(page.getByTestId('rollback'), /Roll country back to 1\?/);
    await shown('policy-active', /^1$/);
    await answers(200);
    const said = await page.getByTestId('history').innerText();
    for (const words of [/Rolled back to 1 from 2/, /Activated 2, before 1/, /Ended the canary 2/, /Let 2 decide for 25 %/, /Started 2 as shadow/]) {
      assert.match(said, words);
    }
    await shoot('policy-rolled-back');
  });
});
