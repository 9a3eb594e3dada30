/**
 * The Segue under test: one that runs already (SEGUE_PAGE), or one that is
 * started for this test alone (SEGUE_BIN) and stopped as a person would, by
 * SIGINT; that it then ends cleanly is part of the test.
 */

import { spawn, execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';

const START_MS = 60_000;
const STOP_MS = 20_000;
const READY_MS = 180_000;

/** @returns {Promise<{page: string, control: string, token: string, stop: () => Promise<void>}>} */
export async function openSegue() {
  const { SEGUE_PAGE, SEGUE_BIN } = process.env;
  if (SEGUE_PAGE) {
    const url = new URL(SEGUE_PAGE);
    const token = new URLSearchParams(url.hash.slice(1)).get('token');
    if (!token) throw new Error('SEGUE_PAGE has no #token=… in it.');
    return { page: SEGUE_PAGE, control: url.origin, token, stop: async () => {} };
  }
  if (SEGUE_BIN) return startDemo(SEGUE_BIN);
  throw new Error('Set SEGUE_PAGE to the page of a running Segue, or SEGUE_BIN to the command to start one with.');
}

async function startDemo(binary) {
  const dir = await mkdtemp(path.join(tmpdir(), 'segue-browser-'));
  const demo = spawn(binary, ['demo', '--dir', dir, '--port', '0', '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  const log = [];
  readline.createInterface({ input: demo.stderr }).on('line', (line) => {
    log.push(line);
    if (log.length > 200) log.shift();
  });
  const exited = new Promise((resolve) => demo.once('exit', (code, signal) => resolve({ code, signal })));
  const failed = new Promise((_, reject) => demo.once('error', reject));
  const lines = readline.createInterface({ input: demo.stdout });
  const first = new Promise((resolve) => lines.once('line', resolve));
  const outcome = await Promise.race([
    first,
    failed,
    exited.then(({ code }) => Promise.reject(new Error(`segue demo ended with ${code} before it was ready:\n${log.join('\n')}`))),
    after(START_MS, () => `segue demo was not ready after ${START_MS} ms:\n${log.join('\n')}`),
  ]).catch(async (error) => {
    demo.kill('SIGKILL');
    await rm(dir, { recursive: true, force: true });
    throw error;
  });
  const { page, control, token } = JSON.parse(outcome);
  return {
    page,
    control,
    token,
    async stop() {
      demo.kill('SIGINT');
      try {
        const { code, signal } = await Promise.race([exited, after(STOP_MS, () => `segue demo did not end within ${STOP_MS} ms of SIGINT:\n${log.join('\n')}`)]);
        if (code !== 0) throw new Error(`segue demo ended with ${signal ?? code} on SIGINT:\n${log.join('\n')}`);
      } finally {
        demo.kill('SIGKILL');
        await rm(dir, { recursive: true, force: true });
      }
    },
  };
}

function after(ms, message) {
  return new Promise((_, reject) => setTimeout(() => reject(new Error(message())), ms).unref());
}

/** One call of the control API; a refusal throws with its words. */
export async function call(segue, method, route, body) {
  const response = await fetch(new URL(route, segue.control), {
    method,
    headers: { authorization: `Bearer ${segue.token}`, ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${route}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/** Adds a file without the page and waits until it can be played. */
export async function addTrack(segue, file) {
  const bytes = await readFile(file);
  const { track, upload } = await call(segue, 'POST', '/v1/tracks', { filename: path.basename(file), size: bytes.length, multipart: false });
  const headers = Object.fromEntries(Object.entries(upload.headers).filter(([name]) => !/^(host|content-length)$/i.test(name)));
  const put = await fetch(upload.url, { method: upload.method, headers, body: bytes });
  if (!put.ok) throw new Error(`The storage refused the upload: ${put.status} ${await put.text()}`);
  await call(segue, 'POST', `/v1/tracks/${track.track}/uploaded`, {});
  for (const end = Date.now() + READY_MS; Date.now() < end; ) {
    const now = await call(segue, 'GET', `/v1/tracks/${track.track}`);
    if (now.status === 'ready') return now;
    if (now.status === 'failed') throw new Error(`The track failed: ${now.reason}: ${now.message}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new Error(`The track was not ready after ${READY_MS} ms.`);
}

/** SEGUE_MEDIA, or 90 seconds of two tones with a title, made by ffmpeg. */
export async function mediaFile(folder) {
  if (process.env.SEGUE_MEDIA) return process.env.SEGUE_MEDIA;
  const file = path.join(folder, 'two-tones.mp3');
  await promisify(execFile)('ffmpeg', [
    '-v', 'error', '-y', '-f', 'lavfi', '-i', 'aevalsrc=0.3*sin(2*PI*220*t)*(0.6+0.4*sin(t))|0.3*sin(2*PI*330*t):s=44100:d=90',
    '-c:a', 'libmp3lame', '-b:a', '192k', '-metadata', 'title=Two Tones', '-metadata', 'artist=Testkit', file,
  ]);
  return file;
}

/** Five seconds of a film. */
export async function filmFile(folder) {
  const file = path.join(folder, 'film.mp4');
  await promisify(execFile)('ffmpeg', [
    '-v', 'error', '-y', '-f', 'lavfi', '-i', 'testsrc2=s=320x180:r=25:d=5', '-f', 'lavfi', '-i', 'sine=f=440:r=44100:d=5',
    '-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-c:a', 'aac', '-t', '5', file,
  ]);
  return file;
}

/** Eight seconds of a tone as WAV, small enough to hand to a page. */
export function wav(seconds = 8, rate = 22_050) {
  const samples = seconds * rate;
  const bytes = Buffer.alloc(44 + samples * 2);
  bytes.write('RIFF', 0);
  bytes.writeUInt32LE(36 + samples * 2, 4);
  bytes.write('WAVEfmt ', 8);
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(rate, 24);
  bytes.writeUInt32LE(rate * 2, 28);
  bytes.writeUInt16LE(2, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write('data', 36);
  bytes.writeUInt32LE(samples * 2, 40);
  for (let at = 0; at < samples; at += 1) {
    bytes.writeInt16LE(Math.round(9000 * Math.sin((2 * Math.PI * 262 * at) / rate)), 44 + at * 2);
  }
  return bytes;
}
