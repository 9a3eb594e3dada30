/**
 * The stream itself in players that are not ours to bend: hls.js and Shaka
 * Player, on a bare page of another origin, know nothing but a playback URL.
 *
 *   SEGUE_URL    a playback URL; without it a track is added to SEGUE_PAGE or
 *                SEGUE_BIN (see segue.mjs) and a ticket asked for
 */

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { launch, watch } from './chromium.mjs';
import { addTrack, call, filmFile, mediaFile, openSegue } from './segue.mjs';

const require = createRequire(import.meta.url);
const SCRIPTS = {
  '/hls.js': require.resolve('hls.js/dist/hls.min.js'),
  '/shaka.js': require.resolve('shaka-player/dist/shaka-player.compiled.js'),
};

const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>player</title>
<audio controls></audio><script src="/hls.js"></script><script src="/shaka.js"></script>
<script>
  const audio = document.querySelector('audio');
  const failed = [];
  window.players = {
    async hls(url) {
      const hls = (window.player = new Hls({ enableWorker: false }));
      const parsed = new Promise((resolve, reject) => {
        hls.once(Hls.Events.MANIFEST_PARSED, resolve);
        hls.on(Hls.Events.ERROR, (_, data) => {
          // A request that a change of quality made pointless is reported as aborted; a stall that is not fatal is the machine's, and the
          // song still has to play to its end.
          if (!data.fatal && [Hls.ErrorDetails.INTERNAL_ABORTED, Hls.ErrorDetails.BUFFER_STALLED_ERROR].includes(data.details)) return;
          failed.push(data.type + ' ' + data.details);
          reject(new Error(data.type + ' ' + data.details + ' ' + (data.response ? data.response.code : '')));
        });
      });
      hls.loadSource(url);
      hls.attachMedia(audio);
      await parsed;
      return hls.levels.map((level) => ({ bandwidth: level.bitrate, codecs: level.audioCodec ?? level.codecSet }));
    },
    async shaka(url) {
      shaka.polyfill.installAll();
      const player = (window.player = new shaka.Player());
      player.addEventListener('error', (event) => failed.push('shaka ' + event.detail.code));
      await player.attach(audio);
      await player.load(url).catch((error) => {
        throw new Error('shaka ' + error.code + ' ' + JSON.stringify(error.data));
      });
      return player.getVariantTracks().map((track) => ({ bandwidth: track.bandwidth, codecs: track.codecs }));
    },
  };
  window.failed = failed;
</script>`;

describe('players', { timeout: 300_000 }, () => {
  let segue, browser, server, origin, url, folder;

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'segue-players-test-'));
    url = process.env.SEGUE_URL;
    if (!url) {
      segue = await openSegue();
      const track = await addTrack(segue, await mediaFile(folder));
      url = (await call(segue, 'POST', `/v1/tracks/${track.track}/tickets`, {})).url;
    }
    server = createServer(async (request, response) => {
      const script = SCRIPTS[request.url];
      if (script) response.writeHead(200, { 'content-type': 'text/javascript' }).end(await readFile(script));
      else response.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
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

  for (const name of ['hls', 'shaka']) {
    test(`${name} plays, seeks and comes to the end`, async () => {
      const context = await browser.newContext();
      const page = await context.newPage();
      const faults = watch(page);
      await page.goto(origin);
      const renditions = await page.evaluate(([player, address]) => window.players[player](address), [name, url]);
      assert.ok(renditions.length >= 1, 'at least one rendition');
      for (const rendition of renditions) {
        assert.match(String(rendition.codecs), /^mp4a\.40\.\d+$/);
        assert.ok(rendition.bandwidth > 8_000);
      }
      const audio = page.locator('audio');
      await audio.evaluate((element) => element.play());
      await page.waitForFunction(() => document.querySelector('audio').currentTime > 3, null, { timeout: 30_000 });
      const length = await audio.evaluate((element) => element.duration);
      assert.ok(Number.isFinite(length) && length > 3, `a length that is known: ${length}`);
      for (const share of [0.6, 0.2]) {
        await audio.evaluate((element, to) => (element.currentTime = to), length * share);
        await page.waitForFunction((to) => document.querySelector('audio').currentTime > to + 0.5, length * share, { timeout: 30_000 });
      }
      await audio.evaluate((element) => (element.currentTime = element.duration - 1.5));
      await page.waitForFunction(() => document.querySelector('audio').ended, null, { timeout: 30_000 });
      assert.deepEqual(await page.evaluate(() => window.failed), [], 'the player reported errors');
      assert.deepEqual(faults.take(), []);
      await context.close();
    });
  }

  // A URL alone is of a song: a film is added where there is a Segue to add it to.
  const withFilms = process.env.SEGUE_URL ? () => {} : test;
  withFilms('hls.js plays a film with its sound', async () => {
    const film = await addTrack(segue, await filmFile(folder));
    const address = (await call(segue, 'POST', `/v1/tracks/${film.track}/tickets`, {})).url;
    const page = await browser.newPage();
    const faults = watch(page);
    await page.goto(origin);
    const levels = await page.evaluate((source) => {
      const video = document.body.appendChild(document.createElement('video'));
      video.muted = true;
      const hls = new Hls({ enableWorker: false });
      hls.on(Hls.Events.ERROR, (_, data) => data.fatal && window.failed.push(data.type + ' ' + data.details));
      const parsed = new Promise((resolve) => hls.once(Hls.Events.MANIFEST_PARSED, resolve));
      hls.loadSource(source);
      hls.attachMedia(video);
      return parsed.then(() => video.play()).then(() => hls.levels.map((level) => [level.width, level.videoCodec, level.audioCodec, hls.audioTracks.length]));
    }, address);
    assert.equal(levels.length, 1);
    const [width, picture, sound, tracks] = levels[0];
    assert.equal(width, 320);
    assert.match(picture, /^avc1\.[0-9a-f]{6}$/);
    assert.match(sound, /^mp4a\.40\.2$/);
    assert.equal(tracks, 1);
    await page.waitForFunction(() => document.querySelector('video').ended, null, { timeout: 30_000 });
    const shown = await page.locator('video').evaluate((video) => [video.videoWidth, video.videoHeight, video.duration, video.getVideoPlaybackQuality().totalVideoFrames]);
    assert.deepEqual(shown.slice(0, 2), [320, 180]);
    assert.ok(Math.abs(shown[2] - 5) < 0.1 && shown[3] > 60, `five seconds, and pictures of them: ${shown}`);
    assert.deepEqual(await page.evaluate(() => window.failed), []);
    assert.deepEqual(faults.take(), []);
    await page.close();
  });

  test('hls.js plays each rendition on its own', async () => {
    const page = await browser.newPage();
    const faults = watch(page);
    await page.goto(origin);
    const renditions = await page.evaluate((address) => window.players.hls(address), url);
    await page.locator('audio').evaluate((element) => element.play());
    for (const at of renditions.keys()) {
      const heard = await page.evaluate(
        (level) =>
          new Promise((resolve) => {
            const { player } = window;
            player.on(Hls.Events.FRAG_CHANGED, (_, data) => {
              if (data.frag.level === level) resolve(data.frag.level);
            });
            player.currentLevel = level;
            document.querySelector('audio').currentTime = 0.1;
          }),
        at,
      );
      assert.equal(heard, at);
    }
    assert.deepEqual(await page.evaluate(() => window.failed), []);
    assert.deepEqual(faults.take(), []);
    await page.close();
  });
});
