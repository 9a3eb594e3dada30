import { describe, expect, it, vi } from 'vitest';
import type { PartsUpload, Upload } from './model';
import { fingerprint, sendParts, type PartSteps } from './parts';

const UPLOAD: PartsUpload = { method: 'MULTIPART', part_size: 4, parts: 3 };
const file = new Blob(['aaaabbbbcc']);

function bench(put: PartSteps['put']) {
  const urls = vi.fn(async (_track: string, parts: number[]) =>
    parts.map((number) => ({ number, bytes: Math.min(4, 10 - (number - 1) * 4), method: 'PUT', url: `http://s/${number}`, headers: {} })),
  );
  return { urls, put: vi.fn(put), pause: vi.fn(async () => undefined) };
}

describe('sendParts', () => {
  it('sends what is missing and counts what is there', async () => {
    const bodies = new Map<string, string>();
    const steps = bench(async (upload, bytes) => void bodies.set(upload.url, await bytes.text()));
    const progress = vi.fn();
    const present = [{ number: 2, bytes: 4 }];
    await sendParts(steps, 't', { ...UPLOAD, present }, file, progress, new AbortController().signal);
    expect([...bodies].sort()).toEqual([['http://s/1', 'aaaa'], ['http://s/3', 'cc']]);
    expect(progress.mock.calls[0]).toEqual([4]);
    expect(progress.mock.lastCall).toEqual([10]);
    expect(steps.urls).toHaveBeenCalledTimes(1);
  });

  it('tries a part again by a new URL, and gives up in the end', async () => {
    let broken = 2;
    const steps = bench(async (upload) => {
      if (upload.url.endsWith('2') && broken > 0) {
        broken -= 1;
        throw new Error('broke off');
      }
    });
    await sendParts(steps, 't', UPLOAD, file, () => undefined, new AbortController().signal);
    expect(steps.urls.mock.calls.map((call) => call[1])).toEqual([[1, 2, 3], [2], [2]]);
    broken = 99;
    await expect(sendParts(steps, 't', UPLOAD, file, () => undefined, new AbortController().signal)).rejects.toThrow('broke off');
  });

  it('stops where it is told to', async () => {
    const abort = new AbortController();
    const steps = bench(
      (_upload: Upload, _bytes, _progress, signal) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(new DOMException('x', 'AbortError')))),
    );
    const sending = sendParts(steps, 't', UPLOAD, file, () => undefined, abort.signal);
    await new Promise((resolve) => setTimeout(resolve, 0));
    abort.abort();
    await expect(sending).rejects.toThrow('x');
    expect(steps.put).toHaveBeenCalledTimes(3);
  });
});

describe('fingerprint', () => {
  it('is short and tells files apart', () => {
    const one = { name: 'ä'.repeat(200), size: 5e9, lastModified: 1_700_000_000_000 };
    expect(fingerprint(one)).toBe(fingerprint({ ...one }));
    expect(fingerprint(one)).not.toBe(fingerprint({ ...one, name: 'b' }));
    expect(fingerprint(one)).toMatch(/^page:[0-9a-f]{16}:5000000000:1700000000000$/);
  });
});
