/**
 * Holds a track's playlists and files against Apple's authoring rules that apply, as a parser that is not ours reads
 * them (npm's hls-parser):
 *
 *   node authoring.mjs FOLDER       the folder with master.m3u8; everything it names lies under it
 *
 * Prints one line of JSON for each variant; exit status 1 with a line for each broken rule.
 */

import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import HLS from 'hls-parser';

const [folder] = process.argv.slice(2);
const broken = [];

function rule(text, check) {
  try {
    check();
  } catch (error) {
    broken.push(`${text}: ${error.message.split('\n')[0]}`);
  }
}

/** Bits per second: the most over any stretch of half to one and a half target durations, and over all. */
function rates(sizes, lengths, target) {
  const rate = (bytes, seconds) => (bytes * 8) / seconds;
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const average = rate(sum(sizes), sum(lengths));
  let peak = 0;
  for (let from = 0; from < sizes.length; from += 1) {
    for (let to = from + 1; to <= sizes.length; to += 1) {
      const seconds = sum(lengths.slice(from, to));
      if (seconds > target * 1.5) break;
      if (seconds >= target * 0.5) peak = Math.max(peak, rate(sum(sizes.slice(from, to)), seconds));
    }
  }
  return { peak: Math.max(peak, average), average };
}

/** The sample entry of an init section, as the file says it. */
function codecOf(init) {
  const bytes = readFileSync(init);
  for (const [entry, codec] of [['mp4a', /^mp4a\.40\.(2|5|29)$/], ['Opus', /^Opus$/], ['fLaC', /^fLaC$/], ['avc1', /^avc1\.[0-9a-f]{6}$/i]]) {
    if (bytes.includes(entry, 0, 'latin1')) return codec;
  }
  throw new Error(`no codec that is known in ${init}`);
}

function media(file, described) {
  const playlist = HLS.parse(readFileSync(file, 'utf8'));
  const target = playlist.targetDuration;
  rule(`${file} is a whole playlist of segments`, () => {
    assert.equal(playlist.isMasterPlaylist, false);
    assert.ok(playlist.endlist && playlist.playlistType === 'VOD' && playlist.segments.length > 0);
    assert.equal(playlist.mediaSequenceBase, 0);
  });
  rule(`${file} says that segments are independent`, () => assert.ok(playlist.independentSegments));
  rule(`${file} has target durations of six seconds`, () => assert.equal(target, 6));
  rule(`${file} has no segment longer than its target, rounded`, () => {
    for (const segment of playlist.segments) assert.ok(Math.round(segment.duration) <= target, `${segment.uri}: ${segment.duration}`);
  });
  rule(`${file} keeps its names in its own folder`, () => {
    for (const { uri, map } of playlist.segments) assert.ok(!/[/:]/.test(uri) && !/[/:]/.test(map.uri), uri);
  });
  const size = (uri) => statSync(path.join(path.dirname(file), uri)).size;
  const lengths = playlist.segments.map((segment) => segment.duration);
  const { peak, average } = rates(playlist.segments.map((segment) => size(segment.uri)), lengths, target);
  if (described) {
    rule(`${file}: BANDWIDTH within 10 %`, () => assert.ok(Math.abs(described.bandwidth / peak - 1) <= 0.1, `${described.bandwidth} of ${peak}`));
    rule(`${file}: AVERAGE-BANDWIDTH within 10 %`, () => assert.ok(Math.abs(described.averageBandwidth / average - 1) <= 0.1, `${described.averageBandwidth} of ${average}`));
  }
  const init = path.join(path.dirname(file), playlist.segments[0].map.uri);
  return { seconds: lengths.reduce((a, b) => a + b, 0), peak, average, codec: codecOf(init), lengths };
}

const master = HLS.parse(readFileSync(path.join(folder, 'master.m3u8'), 'utf8'));
rule('the master is one', () => assert.ok(master.isMasterPlaylist && master.variants.length > 0));
rule('the master says that segments are independent', () => assert.ok(master.independentSegments));
rule('the master has a version that its tags need', () => assert.ok(master.version >= 6));
for (const variant of master.variants) {
  const groups = variant.audio ?? [];
  const read = media(path.join(folder, variant.uri), groups.length === 0 ? variant : null);
  const codecs = variant.codecs.split(',');
  rule(`${variant.uri}: CODECS names what the file holds`, () => {
    assert.ok(codecs.some((codec) => read.codec.test(codec)), `${variant.codecs} for ${read.codec}`);
    assert.equal(codecs.length, groups.length === 0 ? 1 : 2);
  });
  if (groups.length > 0) {
    rule(`${variant.uri}: video says its size and rate`, () => assert.ok(variant.resolution?.height > 0 && variant.frameRate > 0));
  }
  for (const sound of groups) {
    const heard = media(path.join(folder, sound.uri), null);
    rule(`${sound.uri}: CODECS names the sound`, () => assert.ok(codecs.some((codec) => heard.codec.test(codec)), variant.codecs));
    rule(`${variant.uri}: BANDWIDTH with its sound within 10 %`, () => {
      const peak = read.peak + heard.peak;
      assert.ok(Math.abs(variant.bandwidth / peak - 1) <= 0.1, `${variant.bandwidth} of ${peak}`);
    });
    rule(`${variant.uri}: sound and picture are of one length`, () => assert.ok(Math.abs(heard.seconds - read.seconds) < 0.5, `${heard.seconds} and ${read.seconds}`));
  }
  console.log(JSON.stringify({ uri: variant.uri, bandwidth: variant.bandwidth, codecs: variant.codecs, seconds: read.seconds, segments: read.lengths.length }));
}
for (const line of broken) console.error(line);
process.exitCode = broken.length > 0 ? 1 : 0;
