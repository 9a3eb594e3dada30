import { describe, expect, it, vi } from 'vitest';
import type { Api } from './api';
import type { Job, Track } from './model';
import { Library } from './store';

const track = (id: string, status: Track['status']) => ({ track: id, status, created_ms: 0 }) as Track;
const job = (state: Job['state'], updated_ms: number) => ({ job: 'j', track: 't', state, created_ms: 0, updated_ms }) as Job;

function library(api: Partial<Api> = {}) {
  return new Library({ tracks: async () => [], jobs: async () => [], ...api } as Api);
}

describe('Library', () => {
  it('keeps what an event said over an answer that was asked for before it, and asks again', async () => {
    vi.useFakeTimers();
    const asks = vi.fn(async () => track('t', 'failed'));
    const tracks = library({ track: asks });
    const asked = tracks.ask();
    tracks.told(track('t', 'failed'));
    tracks.answered(track('t', 'queued'), asked);
    expect(tracks.get('t')?.status).toBe('failed');
    await vi.runAllTimersAsync();
    expect(asks).toHaveBeenCalledTimes(1);
    expect(tracks.get('t')?.status).toBe('failed');
    vi.useRealTimers();
  });

  it('takes an answer that was asked for after the last event', () => {
    const tracks = library();
    tracks.told(track('t', 'transcoding'));
    tracks.answered(track('t', 'ready'), tracks.ask());
    expect(tracks.get('t')?.status).toBe('ready');
  });

  it('lists without bringing back what an event took away or changed meanwhile', async () => {
    let answer: (tracks: Track[]) => void = () => undefined;
    const tracks = library({ tracks: () => new Promise((resolve) => (answer = resolve)) });
    tracks.told(track('gone', 'ready'));
    tracks.told(track('old', 'queued'));
    const listing = tracks.relist();
    tracks.drop('gone');
    tracks.told(track('new', 'ready'));
    answer([track('gone', 'ready'), track('old', 'ready')]);
    await listing;
    expect(tracks.all().map((one) => [one.track, one.status])).toEqual([['new', 'ready'], ['old', 'ready']]);
  });

  it('keeps the newest state of a job', () => {
    const tracks = library();
    tracks.putJob(job('failed', 20));
    tracks.putJob(job('queued', 10));
    expect(tracks.jobOf('t')?.state).toBe('failed');
  });
});
