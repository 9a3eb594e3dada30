import { describe, expect, it, vi } from 'vitest';
import type { Ticket } from '../model';
import { TicketLease, withTicket } from './lease';
import { readPeaks } from './peaks';
import { seekKey } from './seek';

const ticket = (name: string, expires: number): Ticket => ({ ticket: name, url: `http://edge/p/${name}/hls/t/master.m3u8`, expires, sid: 's' });

describe('TicketLease', () => {
  it('asks once for many callers and renews before the end', async () => {
    let now = 0;
    let made = 0;
    const issue = vi.fn(async () => ticket(`k${(made += 1)}`, now / 1000 + 600));
    const lease = new TicketLease(issue, () => now);
    const [a, b] = await Promise.all([lease.current(), lease.current()]);
    expect([a.ticket, b.ticket, issue.mock.calls.length]).toEqual(['k1', 'k1', 1]);
    now = 554_000;
    expect((await lease.current()).ticket).toBe('k1');
    now = 556_000;
    expect((await lease.current()).ticket).toBe('k2');
  });

  it('gives up a refused ticket, but not a newer one for an older refusal', async () => {
    let made = 0;
    const lease = new TicketLease(async () => ticket(`k${(made += 1)}`, 10_000), () => 0);
    await lease.current();
    lease.refused('http://edge/p/k1/hls/t/v/a128/seg-00001.m4s');
    expect((await lease.current()).ticket).toBe('k2');
    lease.refused('http://edge/p/k1/hls/t/v/a128/seg-00002.m4s');
    expect((await lease.current()).ticket).toBe('k2');
  });

  it('does not renew with every request when the clock is wrong', async () => {
    const issue = vi.fn(async () => ticket('k', 5));
    const lease = new TicketLease(issue, () => 1_000_000);
    await lease.current();
    await lease.current();
    expect(issue).toHaveBeenCalledTimes(1);
  });

  it('asks again after a failure', async () => {
    const issue = vi.fn().mockRejectedValueOnce(new Error('down')).mockResolvedValue(ticket('k', 10));
    const lease = new TicketLease(issue, () => 0);
    await expect(lease.current()).rejects.toThrow('down');
    expect((await lease.current()).ticket).toBe('k');
  });
});

describe('withTicket', () => {
  it('changes the ticket in the path and nothing else', () => {
    expect(withTicket('http://edge:81/p/old/hls/t/v/a64/index.m3u8?x=/p/1/hls/', 'new')).toBe('http://edge:81/p/new/hls/t/v/a64/index.m3u8?x=/p/1/hls/');
    expect(withTicket('https://cdn/base/p/old/hls/t/seg.m4s', 'new')).toBe('https://cdn/base/p/new/hls/t/seg.m4s');
    expect(withTicket('https://cdn/hls/t/seg.m4s', 'new')).toBe('https://cdn/hls/t/seg.m4s');
  });
});

describe('readPeaks', () => {
  it('reads the shapes that tools write', () => {
    expect(readPeaks([0, 0.5, -1])).toEqual([0, 0.5, 1]);
    expect(readPeaks({ peaks: [[0.1, 0.2], [0.3, 0.1]] })).toEqual([0.3, 0.2]);
    expect(readPeaks({ bits: 8, data: [-128, 64] })).toEqual([1, 0.5]);
  });

  it('folds long ones and refuses what is none', () => {
    const long = readPeaks(Array.from({ length: 100_000 }, (_, at) => (at === 99_999 ? 1 : 0)));
    expect(long).toHaveLength(4096);
    expect(long?.at(-1)).toBe(1);
    for (const bad of [null, {}, [], { data: 'x' }, 7]) expect(readPeaks(bad)).toBeNull();
  });
});

describe('seekKey', () => {
  it('moves within the track', () => {
    expect([seekKey('ArrowRight', 58, 60), seekKey('ArrowLeft', 3, 60), seekKey('PageUp', 0, 60), seekKey('End', 0, 60)]).toEqual([60, 0, 30, 60]);
    expect(seekKey('a', 3, 60)).toBeNull();
  });
});
