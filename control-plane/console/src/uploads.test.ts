import { describe, expect, it, vi } from 'vitest';
import type { Job, PartsUpload, Track, Upload } from './model';
import { UploadQueue, type UploadSteps } from './uploads';

const UPLOAD: Upload = { method: 'PUT', url: 'http://storage/x', headers: {} };
const PARTS: PartsUpload = { method: 'MULTIPART', part_size: 5, parts: 2 };
const track = (id: string) => ({ track: id }) as Track;

/** Steps whose sending is finished, or broken, by the test. */
function bench(overrides: Partial<UploadSteps> = {}) {
  const sending = new Map<string, { done: () => void; fail: (error: Error) => void; signal: AbortSignal }>();
  let made = 0;
  const steps: UploadSteps = {
    create: vi.fn(async () => ({ track: track(`t${(made += 1)}`), upload: UPLOAD })),
    again: vi.fn(async (id: string) => ({ track: track(id), upload: PARTS })),
    send: vi.fn(
      (_track, _upload, file, onProgress, signal) =>
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

  it('pauses a file in parts and goes on with the same track, after a failure too', async () => {
    const { queue, sending, steps } = bench({ create: vi.fn(async () => ({ track: track('t1'), upload: PARTS })) });
    queue.add([file('a')]);
    await settled();
    const id = queue.list()[0]?.id ?? '';
    queue.pause(id);
    await settled();
    expect(queue.list()[0]).toMatchObject({ state: 'paused', track: 't1', sent: 5 });
    expect(queue.busy()).toBe(false);
    queue.retry(id);
    await settled();
    expect(queue.list()[0]?.state).toBe('sending');
    sending.get('a')?.fail(new Error('broke off'));
    await settled();
    queue.retry(id);
    await settled();
    sending.get('a')?.done();
    await settled();
    expect(steps.create).toHaveBeenCalledTimes(1);
    expect(steps.again).toHaveBeenCalledTimes(2);
    expect(steps.remove).not.toHaveBeenCalled();
    expect(queue.list()).toHaveLength(0);
  });

  it('does not pause a file that travels whole', async () => {
    const { queue } = bench();
    queue.add([file('a')]);
    await settled();
    queue.pause(queue.list()[0]?.id ?? '');
    expect(queue.list()[0]?.state).toBe('sending');
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
