/**
 * A file in parts: what is not in the storage yet travels, several parts at a time, each tried again by a new URL.
 * What the storage has is asked of the control plane, so that a page which was reloaded goes on with the rest.
 */

import { ApiError } from './api';
import type { PartUrl, PartsUpload, Upload } from './model';

/** Parts of one file that travel at once: browsers open six connections to one host. */
const AT_ONCE = 4;
/** Parts whose URLs are asked for at once: few, so that they are used before they expire. */
const BATCH = 16;
/** Times that a part is sent before the file fails. */
const TRIES = 4;
const PAUSE_MS = 500;

export interface PartSteps {
  urls(track: string, parts: number[]): Promise<PartUrl[]>;
  put(upload: Upload, bytes: Blob, onProgress: (sent: number) => void, signal: AbortSignal): Promise<void>;
  pause(ms: number): Promise<void>;
}

export async function sendParts(
  steps: PartSteps,
  track: string,
  upload: PartsUpload,
  file: Blob,
  onProgress: (sent: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const sent = new Map((upload.present ?? []).map((part) => [part.number, part.bytes]));
  const tell = (number: number, bytes: number) => {
    sent.set(number, bytes);
    onProgress([...sent.values()].reduce((sum, one) => sum + one, 0));
  };
  onProgress([...sent.values()].reduce((sum, one) => sum + one, 0));
  const missing = Array.from({ length: upload.parts }, (_, index) => index + 1).filter((number) => !sent.has(number));
  // One lane that fails stops the others.
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const ready: PartUrl[] = [];
  let asking: Promise<void> | null = null;

  const next = async (): Promise<PartUrl | undefined> => {
    while (ready.length === 0 && missing.length > 0) {
      asking ??= steps
        .urls(track, missing.slice(0, BATCH))
        .then((urls) => {
          missing.splice(0, urls.length);
          ready.push(...urls);
        })
        .finally(() => (asking = null));
      await asking;
    }
    return ready.shift();
  };
  const lane = async (): Promise<void> => {
    for (let part = await next(); part; part = await next()) {
      either.throwIfAborted();
      await one(part);
    }
  };
  const one = async (first: PartUrl): Promise<void> => {
    let part = first;
    const from = (part.number - 1) * upload.part_size;
    const bytes = file.slice(from, from + part.bytes);
    for (let tries = 1; ; tries += 1) {
      try {
        await steps.put(part, bytes, (done) => tell(part.number, done), either);
        tell(part.number, part.bytes);
        return;
      } catch (error) {
        tell(part.number, 0);
        if (either.aborted || tries >= TRIES) throw error;
      }
      await steps.pause(PAUSE_MS * 2 ** (tries - 1));
      either.throwIfAborted();
      // The URL before may have expired.
      const [again] = await steps.urls(track, [part.number]);
      if (!again) throw new ApiError('no-url', 'The control plane gave no address for a part of the file.', 0);
      part = again;
    }
  };
  const lanes = Array.from({ length: AT_ONCE }, lane);
  try {
    await Promise.all(lanes);
  } catch (error) {
    stop.abort();
    await Promise.allSettled(lanes);
    throw error;
  }
}

/** What an upload of this file is found again by, in this browser and in others: its name, size and time. */
export function fingerprint(file: { name: string; size: number; lastModified: number }): string {
  // FNV-1a over the name, twice with different beginnings: names may be longer than a fingerprint.
  const hash = (basis: number) => {
    let sum = basis;
    for (const byte of new TextEncoder().encode(file.name)) sum = Math.imul(sum ^ byte, 0x01000193) >>> 0;
    return sum.toString(16).padStart(8, '0');
  };
  return `page:${hash(0x811c9dc5)}${hash(0x1234567)}:${file.size}:${file.lastModified}`;
}
