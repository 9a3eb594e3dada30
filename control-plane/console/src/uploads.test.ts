import { describe, expect, it, vi } from 'vitest';
import type { Job, Track, Upload } from './model';
import { UploadQueue, type UploadSteps } from './uploads';

const UPLOAD: Upload = { method: 'PUT', url: 'http://storage/x', headers: {} };
const track = (id: string) => ({ track: id }) as Track;

/** Steps whose sending is finished, or broken, by the test. */
function bench(overrides: Partial<UploadSteps> = {}) {
  const sending = new Map<string, { done: () => void; fail: (error: Error) => void; signal: AbortSignal }>();
  let made = 0;
  const steps: UploadSteps = {
    create: vi.fn(async () => ({ track: track(`t${(made += 1)}`), upload: UPLOAD })),
    send: vi.fn(
      (_upload, file, onProgress, signal) =>
        new Promise<void>((done, fail) => {
          onProgress(file.size / 2);
          signal.addEventListener('abort', () => fail(new DOMException('stopped', 'AbortError')));
          sending.set(file.name, { done, fail, signal });
        }),
    ),
    finish: vi.fn(async (id: string) => ({ track: track(id), job: { track: id } as Job })),
    remove: vi.fn(async () => undefined),
    ...overrides,
  };
  const watch = { onChange: vi.fn(), asking: vi.fn(() => 0), onTrack: vi.fn(), onJob: vi.fn(), onRemoved: vi.fn() };
  return { queue: new UploadQueue(steps, watch, 2), steps, watch, sending };
}

const file = (name: string) => new File(['0123456789'], name);
const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

describe('UploadQueue', () => {
  it('sends two at a time and starts the next as one ends', async () => {
    const { queue, sending, watch } = bench();
    queue.add([file('a'), file('b'), file('c')]);
    await settled();
    expect(queue.list().map((item) => item.state)).toEqual(['sending', 'sending', 'waiting']);
    expect(queue.list()[0]?.sent).toBe(5);
    sending.get('a')?.done();
    await settled();
    expect(queue.list().map((item) => [item.file.name, item.state])).toEqual([['b', 'sending'], ['c', 'sending']]);
    expect(watch.onJob).toHaveBeenCalledTimes(1);
  });

  it('keeps a failure with its reason, goes on, and retries with a new track', async () => {
    const { queue, sending, steps } = bench();
    queue.add([file('a'), file('b')]);
    await settled();
    sending.get('a')?.fail(new Error('The storage refused the upload (403).'));
    sending.get('b')?.done();
    await settled();
    const [failed] = queue.list();
    expect(queue.list()).toHaveLength(1);
    expect([failed?.state, failed?.message]).toEqual(['failed', 'The storage refused the upload (403).']);
    expect(queue.busy()).toBe(false);
    queue.retry(failed?.id ?? '');
    await settled();
    expect(steps.remove).toHaveBeenCalledWith('t1');
    expect(queue.list()[0]).toMatchObject({ state: 'sending', track: 't3' });
  });

  it('takes the track back when a file is cancelled, also before it is known', async () => {
    let create: (made: { track: Track; upload: Upload }) => void = () => undefined;
    const { queue, steps, sending } = bench({ create: () => new Promise((resolve) => (create = resolve)) });
    queue.add([file('a')]);
    queue.cancel(queue.list()[0]?.id ?? '');
    expect(queue.list()).toHaveLength(0);
    create({ track: track('late'), upload: UPLOAD });
    await settled();
    expect(steps.remove).toHaveBeenCalledWith('late');
    expect(sending.size).toBe(0);
  });

  it('stops the transfer of a cancelled file and uses its place', async () => {
    const { queue, sending, steps } = bench();
    queue.add([file('a'), file('b'), file('c')]);
    await settled();
    queue.cancel(queue.list()[0]?.id ?? '');
    await settled();
    expect(sending.get('a')?.signal.aborted).toBe(true);
    expect(steps.remove).toHaveBeenCalledWith('t1');
    expect(queue.list().map((item) => item.state)).toEqual(['sending', 'sending']);
  });
});
