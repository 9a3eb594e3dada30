/**
 * The console, driven as a person would: a song goes in, is heard, and is counted
 * once for each listener. Everything a page can complain about fails the test.
 *
 *   SEGUE_PAGE   the page with its #token=…, or SEGUE_BIN to start `segue demo`
 *   SEGUE_MEDIA  an audio file of 40 s or more (made by ffmpeg when absent)
 *   SEGUE_SHOTS  a folder for screenshots (optional)
 */

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { launch, watch } from './chromium.mjs';
import { call, mediaFile, openSegue, wav } from './segue.mjs';

const READY_MS = 180_000;
const WIDE = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };

describe('console', { timeout: 600_000 }, () => {
  let segue, browser, context, page, faults, folder, media;
  /** The id of the song that the tests play. */
  let song;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'segue-console-test-'));
    media = await mediaFile(folder);
    segue = await openSegue();
    browser = await launch();
    context = await browser.newContext({ viewport: WIDE, colorScheme: 'light' });
    page = await context.newPage();
    faults = watch(page);
    await recordStates(page);
    await page.goto(segue.page);
  });

  after(async () => {
    await browser?.close();
    await segue?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  afterEach(() => assert.deepEqual(faults.take(), [], 'the page complained'));

  const row = (id, on = page) => on.locator(`[data-testid=track][data-track="${id}"]`);
  const stats = () => call(segue, 'GET', `/v1/tracks/${song}/stats`);
  const position = (on = page) => on.locator('audio').evaluate((audio) => audio.currentTime);
  const paused = (on = page) => on.locator('audio').evaluate((audio) => audio.paused);

  async function reaches(seconds, on = page) {
    await on.waitForFunction((s) => document.querySelector('audio').currentTime >= s, seconds, { timeout: 90_000 });
  }

  async function counted(text, on = page) {
    const cell = row(song, on).getByTestId('track-qualified');
    await cell.filter({ hasText: new RegExp(`^${text}$`) }).waitFor({ timeout: 90_000 });
  }

  async function start(on = page) {
    await row(song, on).getByTestId('play').click({ force: true });
    await reaches(1, on);
  }

  test('takes the token out of the address and comes alive', async () => {
    await page.locator('[data-testid=live][data-state=open]').waitFor();
    assert.ok(!page.url().includes('token'), `the token still stands in ${page.url()}`);
    await page.reload();
    await page.locator('[data-testid=live][data-state=open]').waitFor();
    assert.equal(await page.getByTestId('sign-in').count(), 0, 'a reload keeps the token');
  });

  test('says what to do without a token, and with a wrong one', async () => {
    const stranger = await browser.newContext({ viewport: WIDE });
    const door = await stranger.newPage();
    await door.goto(segue.control);
    assert.match(await door.getByTestId('sign-in').innerText(), /needs a token/);
    await door.getByTestId('token-field').fill('not-the-token');
    await door.keyboard.press('Enter');
    await door.getByText('This token was not accepted').waitFor();
    await stranger.close();
  });

  test('an upload through the file button is shown, transcoded with progress, and ready', async () => {
    const known = new Set((await call(segue, 'GET', '/v1/tracks')).tracks.map((track) => track.track));
    await page.getByTestId('file').setInputFiles(media);
    await page.waitForFunction(() => window.seen.uploads.length > 0, null, { timeout: 20_000 });
    song = await page
      .waitForFunction(
        (ids) => [...document.querySelectorAll('[data-testid=track]')].map((one) => one.dataset.track).find((id) => !ids.includes(id)),
        [...known],
        { timeout: 30_000 },
      )
      .then((handle) => handle.jsonValue());
    await page.locator(`[data-track="${song}"][data-status=ready]`).waitFor({ timeout: READY_MS });
    const seen = await page.evaluate((id) => window.seen.tracks[id], song);
    assert.ok(seen.statuses.includes('transcoding'), `statuses seen: ${seen.statuses}`);
    assert.ok(seen.shares.some((share) => share > 0 && share < 100), `progress seen: ${seen.shares}`);
    assert.deepEqual(seen.shares, [...seen.shares].sort((a, b) => a - b), 'progress never goes back');
    assert.match(await row(song).locator('.row-length').innerText(), /^\d+:\d\d$/);
  });

  test('files that are dropped are queued, and a bad one says why in words', async () => {
    const known = new Set((await call(segue, 'GET', '/v1/tracks')).tracks.map((track) => track.track));
    const files = [
      ['dropped.wav', 'audio/wav', wav().toString('base64')],
      ['shopping list.txt', 'text/plain', Buffer.from('bread\nbutter\nstrings for the violin\n'.repeat(40)).toString('base64')],
    ];
    const transfer = await page.evaluateHandle((list) => {
      const transfer = new DataTransfer();
      for (const [name, type, base64] of list) {
        const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type }));
      }
      return transfer;
    }, files);
    await page.dispatchEvent('body', 'dragenter', { dataTransfer: transfer });
    await page.getByTestId('drop').waitFor();
    await page.dispatchEvent('body', 'drop', { dataTransfer: transfer });
    assert.equal(await page.getByTestId('drop').isVisible(), false, 'the overlay goes with the drop');
    await page.waitForFunction(
      (ids) => {
        const rows = [...document.querySelectorAll('[data-testid=track]')].filter((one) => !ids.includes(one.dataset.track));
        return rows.length === 2 && rows.every((one) => ['ready', 'failed'].includes(one.dataset.status));
      },
      [...known],
      { timeout: READY_MS },
    );
    const outcome = (await call(segue, 'GET', '/v1/tracks')).tracks.filter((track) => !known.has(track.track));
    const bad = outcome.find((track) => track.filename === 'shopping list.txt');
    assert.equal(outcome.find((track) => track.filename === 'dropped.wav')?.status, 'ready', 'the next file is not harmed');
    assert.equal(bad?.status, 'failed');
    const told = await row(bad.track).getByTestId('failure').innerText();
    assert.equal(told, bad.message);
    assert.ok(told.split(' ').length >= 5, `a sentence, not a word: ${told}`);
    await shoot('wide-light-library', page);
  });

  test('plays, and counts one play when enough was heard', async () => {
    assert.equal(await row(song).getByTestId('track-qualified').innerText(), '0');
    await start();
    const before = await position();
    await reaches(before + 2);
    assert.match(await page.getByTestId('quality').locator('option').first().innerText(), /^Auto, \d+ kbit\/s$/);
    await page.locator('[data-testid=seek].has-peaks').waitFor();
    await page.getByTestId('live-play').first().waitFor({ timeout: 20_000 });
    await counted('1');
    await page.locator('[data-testid=live-play][data-qualified=true]').waitFor({ timeout: 10_000 });
    const sum = await stats();
    assert.deepEqual([sum.qualified, sum.plays, sum.listeners], [1, 1, 1]);
  });

  test('keys: space, arrows, and the seek bar by itself', async () => {
    await page.evaluate(() => document.activeElement?.blur());
    await page.keyboard.press('Space');
    assert.equal(await paused(), true);
    const at = await position();
    await page.keyboard.press('ArrowLeft');
    assert.ok(Math.abs((await position()) - Math.max(0, at - 5)) < 0.5, 'left goes back five seconds');
    await page.keyboard.press('ArrowRight');
    assert.ok(Math.abs((await position()) - at) < 1, 'right comes back');
    await page.keyboard.press('Space');
    await page.waitForFunction(() => !document.querySelector('audio').paused);
    await page.getByTestId('seek').focus();
    await page.keyboard.press('Home');
    await page.waitForFunction(() => document.querySelector('audio').currentTime < 3);
    assert.match(await page.getByTestId('seek').getAttribute('aria-valuetext'), /second.* of .*second|minute/);
    await page.keyboard.press('Tab');
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(ring, 'solid', 'what has the focus shows it');
  });

  test('seeking back and forth, a reload and a replay add nothing', async () => {
    const length = await page.locator('audio').evaluate((audio) => audio.duration);
    const bar = await page.getByTestId('seek').boundingBox();
    for (const share of [0.7, 0.1, 0.5, 0.05]) {
      await page.mouse.click(bar.x + bar.width * share, bar.y + bar.height / 2);
      await page.waitForFunction((at) => Math.abs(document.querySelector('audio').currentTime - at) < 4, length * share);
    }
    await page.reload();
    await row(song).waitFor();
    await start();
    await page.keyboard.press('End');
    await page.getByTestId('seek').focus();
    await page.keyboard.press('Home');
    await reaches(2);
    // Facts reach the tally in moments; were one of these counted, it would be here by now.
    await page.waitForTimeout(3_000);
    const sum = await stats();
    assert.deepEqual([sum.qualified, sum.plays, sum.listeners], [1, 1, 1]);
    assert.equal(await row(song).getByTestId('track-qualified').innerText(), '1');
  });

  test('a ticket that is refused in mid-song is replaced where the listener is', async () => {
    let refused = 0;
    let renewed = 0;
    faults.allow(/status of 401/);
    page.on('request', (request) => {
      if (request.method() === 'POST' && /\/tickets$/.test(request.url())) renewed += 1;
    });
    await page.reload();
    await row(song).waitFor();
    await start();
    await context.route(/\.m4s(\?|$)/, async (route) => {
      if (refused > 0) return route.fallback();
      refused += 1;
      await route.fulfill({
        status: 401,
        headers: { 'access-control-allow-origin': '*', 'content-type': 'application/json' },
        body: JSON.stringify({ error: 'expired', message: 'This ticket has expired.' }),
      });
    });
    const to = 0.8 * (await page.locator('audio').evaluate((audio) => audio.duration));
    await page.locator('audio').evaluate((audio, at) => (audio.currentTime = at), to);
    await reaches(to + 1);
    await context.unroute(/\.m4s(\?|$)/);
    assert.equal(refused, 1);
    assert.ok(renewed >= 2, `tickets asked for: ${renewed}`);
    assert.equal(await paused(), false);
  });

  test('a second listener makes it two', async () => {
    const other = await browser.newContext({ viewport: PHONE, colorScheme: 'dark', isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
    const phone = await other.newPage();
    const trouble = watch(phone);
    await phone.goto(segue.page);
    await row(song, phone).waitFor();
    await start(phone);
    await counted('2', phone);
    await counted('2');
    const sum = await stats();
    assert.deepEqual([sum.qualified, sum.plays, sum.listeners], [2, 2, 2]);
    assert.deepEqual(trouble.take(), [], 'the phone complained');

    await phone.locator('audio').evaluate((audio) => audio.pause());
    await tour(phone, 'phone-dark');
    await phone.emulateMedia({ colorScheme: 'light' });
    await tour(phone, 'phone-light');
    await other.close();
  });

  test('quality, link, purge and figures of a track', async () => {
    await page.getByTestId('quality').selectOption({ index: 1 });
    await page.waitForFunction(() => {
      const select = document.querySelector('[data-testid=quality]');
      return select.value !== '' && select.dataset.heard === select.value;
    }, null, { timeout: 60_000 });
    await row(song).getByTestId('track-title').click();
    await page.getByTestId('stat-qualified').filter({ hasText: /^2$/ }).waitFor();
    assert.equal(await page.getByTestId('stat-listeners').innerText(), '2');
    await page.locator('[data-testid=hourly] canvas').waitFor();
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.getByTestId('detail-copy').click();
    await page.getByText('Playback link copied').waitFor();
    const link = await page.evaluate(() => navigator.clipboard.readText());
    const answer = await fetch(link);
    assert.equal(answer.status, 200);
    assert.match(await answer.text(), /^#EXTM3U/);
    await page.getByTestId('detail-purge').click();
    await page.getByText(/^Purged/).waitFor();
    await page.locator('audio').evaluate((audio) => audio.pause());
    await shoot('wide-light-detail', page);
    await page.emulateMedia({ colorScheme: 'dark' });
    await shoot('wide-dark-detail', page);
    await page.goBack();
    await row(song).waitFor();
    await shoot('wide-dark-library', page);
  });

  test('the traffic of the house is drawn, with its units, and the refusals of before', async () => {
    await page.emulateMedia({ colorScheme: 'light' });
    await page.getByTestId('tab-traffic').click();
    await page.getByTestId('traffic-counted').filter({ hasText: /^2$/ }).waitFor();
    for (const plot of ['plot-plays', 'plot-bytes', 'plot-cache', 'plot-ttfb']) {
      await page.locator(`[data-testid=${plot}][data-filled=true] canvas`).waitFor();
    }
    const house = await call(segue, 'GET', '/v1/stats');
    assert.match(await page.getByTestId('plot-plays').getAttribute('aria-label'), /^2 counted plays/);
    assert.match(await page.getByTestId('traffic-delivered').innerText(), /^[\d.]+ (kB|MB)$/);
    assert.equal(await page.getByTestId('traffic-cached').innerText(), `${Math.round(house.cache.ratio * 100)} %`);
    assert.match(await page.getByTestId('busiest').innerText(), /2 counted of 2/);
    // Under the pointer stands what it was, in words and units.
    const plot = page.getByTestId('plot-bytes').locator('.u-over');
    await plot.scrollIntoViewIfNeeded();
    const { width, height } = await plot.boundingBox();
    await plot.hover({ position: { x: width - 4, y: height / 2 } });
    const tip = page.getByTestId('plot-bytes').locator('.plot-tip');
    await tip.waitFor();
    assert.match(await tip.innerText(), /[\d.]+ (kB|MB) delivered/);
    await shoot('wide-light-traffic', page);
    await page.getByTestId('range-168').click();
    await page.locator('[data-testid=range-168][aria-pressed=true]').waitFor();
    await page.locator('[data-testid=plot-plays][data-filled=true] canvas').waitFor();
    await page.emulateMedia({ colorScheme: 'dark' });
    await shoot('wide-dark-traffic', page);
    await page.getByTestId('tab-library').click();
    await row(song).waitFor();
  });

  test('a refused request shows up with its reason', async () => {
    const { url } = await call(segue, 'POST', `/v1/tracks/${song}/tickets`, {});
    const answer = await fetch(url.replace(/\/p\/[^/]+\//, '/p/not.a.ticket/'));
    assert.ok(answer.status === 401 || answer.status === 403);
    const { error } = await answer.json();
    await page.getByTestId('denials').getByText(error.replaceAll('-', ' '), { exact: false }).first().waitFor({ timeout: 10_000 });
  });

  test('deleting asks first, then deletes everywhere', async () => {
    const { tracks } = await call(segue, 'GET', '/v1/tracks');
    const bad = tracks.find((track) => track.filename === 'shopping list.txt');
    await row(bad.track).getByTestId('delete').click();
    await page.keyboard.press('Escape');
    assert.equal(await row(bad.track).count(), 1, 'escape keeps it');
    await row(bad.track).getByTestId('delete').click();
    await page.getByTestId('confirm').click();
    await row(bad.track).waitFor({ state: 'detached' });
    await assert.rejects(call(segue, 'GET', `/v1/tracks/${bad.track}`), /404/);
  });

  /** Every view of a phone, none wider than the phone. */
  async function tour(phone, name) {
    const fits = async (view) => {
      const width = await phone.evaluate(() => document.scrollingElement.scrollWidth);
      assert.ok(width <= PHONE.width, `${view} is ${width} px wide on a phone`);
    };
    await row(song, phone).waitFor();
    await fits('library');
    await shoot(`${name}-library`, phone);
    await phone.getByTestId('tab-activity').click();
    await fits('activity');
    await shoot(`${name}-activity`, phone);
    await phone.getByTestId('tab-traffic').click();
    await phone.locator('[data-testid=plot-plays][data-filled=true] canvas').waitFor();
    await fits('traffic');
    await shoot(`${name}-traffic`, phone);
    await phone.getByTestId('tab-library').click();
    await row(song, phone).getByTestId('track-title').click();
    await phone.locator('[data-testid=hourly][data-filled=true] canvas').waitFor();
    await phone.locator('[data-testid=completion][data-filled=true] canvas').waitFor();
    await fits('detail');
    await shoot(`${name}-detail`, phone);
    await phone.goBack();
  }
});

/** Remembers every state that a row passed through, however short. */
async function recordStates(page) {
  await page.addInitScript(() => {
    window.seen = { uploads: [], tracks: {} };
    const look = () => {
      for (const one of document.querySelectorAll('[data-testid=upload]')) window.seen.uploads.push(one.dataset.state);
      for (const one of document.querySelectorAll('[data-testid=track]')) {
        const seen = (window.seen.tracks[one.dataset.track] ??= { statuses: [], shares: [] });
        const { status } = one.dataset;
        if (seen.statuses.at(-1) !== status) seen.statuses.push(status);
        if (status !== 'transcoding') continue;
        const share = Number(one.querySelector('[role=progressbar]').getAttribute('aria-valuenow'));
        if (seen.shares.at(-1) !== share) seen.shares.push(share);
      }
    };
    new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
  });
}

async function shoot(name, page) {
  const folder = process.env.SEGUE_SHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.waitForTimeout(400);
  await page.screenshot({ path: path.join(folder, `${name}.png`) });
}
