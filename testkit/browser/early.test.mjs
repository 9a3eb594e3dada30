/**
 * A song is heard while the rest of it is still encoded: hls.js, on a bare page of another origin, from the last byte of
 * the upload to the first sound, and on to where the playlist has become whole.
 *
 *   SEGUE_PAGE or SEGUE_BIN   as in segue.mjs
 *   SEGUE_MEDIA               an audio file of some minutes (made by ffmpeg when absent)
 *   SEGUE_EARLY_RESULT        a file that gets {"start_ms":…,"ready_ms":…} (optional)
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { launch, watch } from './chromium.mjs';
import { call, openSegue } from './segue.mjs';

const SCRIPT = createRequire(import.meta.url).resolve('hls.js/dist/hls.min.js');
const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>early</title>
<audio controls></audio><script src="/hls.js"></script>`;
/** Longest wait for anything: two cores may have much else to do. */
const PATIENCE_MS = 120_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

describe('early', { timeout: 300_000 }, () => {
  let segue, browser, server, origin, folder;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'segue-early-test-'));
    segue = await openSegue();
    server = createServer(async (request, response) => {
      const script = request.url === '/hls.js';
      response.writeHead(200, { 'content-type': script ? 'text/javascript' : 'text/html' });
      response.end(script ? await readFile(SCRIPT) : PAGE);
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${server.address().port}/`;
    browser = await launch();
  });

  after(async () => {
    await browser?.close();
    await segue?.stop();
    await new Promise((resolve) => (server ? server.close(resolve) : resolve()));
    await rm(folder, { recursive: true, force: true });
  });

  async function song() {
    if (process.env.SEGUE_MEDIA) return process.env.SEGUE_MEDIA;
    const file = path.join(folder, 'long.flac');
    const noise = 'anoisesrc=d=420:c=pink:r=44100:a=0.3:s=5';
    await promisify(execFile)('ffmpeg', ['-v', 'error', '-y', '-f', 'lavfi', '-i', noise, '-ac', '2', '-compression_level', '0', file]);
    return file;
  }

  test('a song plays before it is whole, and to its end', async () => {
    const bytes = await readFile(await song());
    const page = await browser.newPage();
    const faults = watch(page);
    await page.goto(origin);
    const { track, upload } = await call(segue, 'POST', '/v1/tracks', { filename: 'long.flac', size: bytes.length, multipart: false });
    const id = track.track;
    const headers = Object.fromEntries(Object.entries(upload.headers).filter(([name]) => !/^(host|content-length)$/i.test(name)));
    const put = await fetch(upload.url, { method: upload.method, headers, body: bytes });
    assert.ok(put.ok, await put.text());
    const uploaded = Date.now();
    await call(segue, 'POST', `/v1/tracks/${id}/uploaded`, {});
    let shown;
    for (const end = Date.now() + PATIENCE_MS; ; await pause(25)) {
      shown = await call(segue, 'GET', `/v1/tracks/${id}`);
      assert.notEqual(shown.status, 'failed', shown.message);
      if (shown.playable) break;
      assert.ok(Date.now() < end, `not playable: ${JSON.stringify(shown)}`);
    }
    const { url } = await call(segue, 'POST', `/v1/tracks/${id}/tickets`, {});
    await page.evaluate((address) => {
      window.failed = [];
      const hls = (window.player = new Hls({ enableWorker: false, startPosition: 0 }));
      hls.on(Hls.Events.ERROR, (_, data) => {
        // A stall that is not fatal is the machine's: the song still has to play to its end.
        const stalled = data.details === Hls.ErrorDetails.BUFFER_STALLED_ERROR && !data.fatal;
        if (data.details !== Hls.ErrorDetails.INTERNAL_ABORTED && !stalled) window.failed.push(`${data.type} ${data.details}`);
      });
      hls.on(Hls.Events.LEVEL_LOADED, (_, data) => (window.live = data.details.live));
      hls.loadSource(address);
      hls.attachMedia(document.querySelector('audio'));
      document.querySelector('audio').play();
    }, url);
    await page.waitForFunction(() => document.querySelector('audio').currentTime > 0, null, { timeout: PATIENCE_MS, polling: 20 });
    const start = Date.now() - uploaded;
    const then = await call(segue, 'GET', `/v1/tracks/${id}`);
    const early = /early\.m3u8$/.test(new URL(url).pathname);
    if (early) assert.ok(await page.evaluate(() => window.live) || then.status === 'ready', 'the playlist still grows');

    for (const end = Date.now() + PATIENCE_MS; ; await pause(50)) {
      shown = await call(segue, 'GET', `/v1/tracks/${id}`);
      if (shown.status === 'ready') break;
      assert.equal(shown.status, 'transcoding', shown.message);
      assert.ok(Date.now() < end, 'not ready');
    }
    const ready = Date.now() - uploaded;
    if (process.env.SEGUE_EARLY_RESULT) {
      await writeFile(process.env.SEGUE_EARLY_RESULT, JSON.stringify({ start_ms: start, ready_ms: ready, early }));
    }
    assert.ok(early, `it could be played ${start} ms after the upload and was ready after ${ready} ms: nothing was early`);
    // The same session goes on to the end: the playlist becomes whole under it.
    await page.waitForFunction(() => window.live === false, null, { timeout: PATIENCE_MS });
    const length = await page.evaluate(() => document.querySelector('audio').duration);
    assert.ok(Math.abs(length * 1000 - shown.duration_ms) < 100, `${length} s of ${shown.duration_ms} ms`);
    await page.evaluate(() => (document.querySelector('audio').currentTime = document.querySelector('audio').duration - 1));
    await page.waitForFunction(() => document.querySelector('audio').ended, null, { timeout: PATIENCE_MS });
    assert.deepEqual(await page.evaluate(() => window.failed), [], 'the player reported errors');
    assert.deepEqual(faults.take(), []);
    // A ticket for a ready track leads to the alias again.
    const later = await call(segue, 'POST', `/v1/tracks/${id}/tickets`, {});
    assert.match(later.url, /\/master\.m3u8$/);
    await page.close();
  });
});
