/**
 * A large file goes through the page in parts: paused, gone on with, and, after the page was reloaded in the middle,
 * chosen again and finished with the parts that were missing.
 *
 *   SEGUE_PAGE   the page of a control plane whose parts are of 5 MiB
 *   SEGUE_FILE   a file of three parts
 *   SEGUE_SHOTS  a folder for screenshots (optional)
 */

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { launch, watch } from './chromium.mjs';
import { call, openSegue } from './segue.mjs';

describe('upload', { timeout: 120_000 }, () => {
  let segue, browser, page, faults;
  /** The numbers of the parts that went out, and those that are held back. */
  let sent = [];
  let held = new Set();
  const freed = [];

  before(async () => {
    segue = await openSegue();
    browser = await launch();
    page = await browser.newPage({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' });
    faults = watch(page);
    await page.route(/partNumber=\d+/, async (route, request) => {
      if (request.method() !== 'PUT') return route.continue();
      const number = Number(new URL(request.url()).searchParams.get('partNumber'));
      if (held.has(number)) await new Promise((resolve) => freed.push(resolve));
      else sent.push(number);
      await route.continue().catch(() => undefined);
    });
    page.on('dialog', (dialog) => dialog.accept());
    await page.goto(segue.page);
  });

  after(async () => {
    await browser?.close();
    await segue?.stop();
  });

  const free = () => freed.splice(0).forEach((resolve) => resolve());
  const row = () => page.getByTestId('upload');
  const share = async () => Number(await page.getByTestId('upload-bar').getAttribute('aria-valuenow'));
  const present = async (track) => (await call(segue, 'GET', `/v1/tracks/${track}/upload`)).present.map((part) => part.number);

  test('is paused, goes on, and outlives the page', async () => {
    held = new Set([3]);
    await page.getByTestId('file').setInputFiles(process.env.SEGUE_FILE);
    await page.waitForFunction(() => Number(document.querySelector('[data-testid=upload-bar]')?.ariaValueNow) >= 80, null, { timeout: 30_000 });
    const { uploads } = await call(segue, 'GET', '/v1/uploads');
    const track = uploads[0].track;
    assert.deepEqual(await present(track), [1, 2]);
    await page.getByTestId('upload-pause').click();
    await page.locator('[data-testid=upload][data-state=paused]').waitFor();
    assert.match(await row().innerText(), /Paused at 10(\.\d)? M.* of 1[23]/);
    if (process.env.SEGUE_SHOTS) {
      await mkdir(process.env.SEGUE_SHOTS, { recursive: true });
      await page.screenshot({ path: path.join(process.env.SEGUE_SHOTS, 'upload-paused.png') });
    }
    sent = [];
    await page.getByTestId('upload-retry').click();
    await page.locator('[data-testid=upload][data-state=sending]').waitFor();
    assert.ok((await share()) >= 80, 'what is there counts from the beginning');

    await page.reload();
    await page.locator('[data-testid=live][data-state=open]').waitFor();
    assert.equal(await row().count(), 0);
    free();
    held = new Set();
    await page.getByTestId('file').setInputFiles(process.env.SEGUE_FILE);
    await page.locator(`[data-track="${track}"][data-status=queued]`).waitFor({ timeout: 30_000 });
    assert.deepEqual(sent, [3], 'only what was missing went out again');
    assert.equal((await call(segue, 'GET', '/v1/tracks')).tracks.filter((one) => one.status === 'uploading').length, 0);
    assert.deepEqual((await call(segue, 'GET', '/v1/uploads')).uploads, []);
    assert.deepEqual(faults.take(), []);
  });
});
