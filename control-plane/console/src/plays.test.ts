import { describe, expect, it } from 'vitest';
import { fillHours, inSteps } from './hours';
import type { PlayEvent } from './model';
import { DenialBoard, PlayBoard } from './plays';

const event = (play: string, type: PlayEvent['type'], ts: number, quartile?: number): PlayEvent => ({
  play,
  track: 't',
  type,
  ts,
  ...(quartile === undefined ? {} : { quartile }),
});

describe('PlayBoard', () => {
  it('follows a play to its end, and a repetition changes nothing', () => {
    const board = new PlayBoard();
    const events = [event('p', 'started', 10), event('p', 'quartile', 20, 50), event('p', 'qualified', 30)];
    for (const one of [...events, ...events, event('p', 'quartile', 15, 25)]) board.apply(one);
    expect(board.list()).toEqual([
      { play: 'p', track: 't', since: 10, last: 30, qualified: true, quartile: 50, ended: false },
    ]);
    expect(board.active(40)).toHaveLength(1);
    board.apply(event('p', 'ended', 50));
    expect(board.active(60)).toHaveLength(0);
    expect(board.list()).toHaveLength(1);
  });

  it('does not call a play active for ever when its end was missed', () => {
    const board = new PlayBoard();
    board.apply(event('p', 'started', 0));
    expect(board.active(32 * 60_000)).toHaveLength(0);
  });

  it('is bounded, and lets ended plays go first', () => {
    const board = new PlayBoard();
    board.apply(event('running', 'started', 1));
    for (let at = 0; at < 100; at += 1) board.apply(event(`p${at}`, 'ended', 100 + at));
    expect(board.list()).toHaveLength(60);
    expect(board.list().some((play) => play.play === 'running')).toBe(true);
  });
});

describe('DenialBoard', () => {
  it('sums by reason, most frequent first', () => {
    const board = new DenialBoard();
    for (const reason of ['expired', 'out-of-scope', 'out-of-scope']) board.apply({ reason, ts: 5 });
    expect(board.total).toBe(3);
    expect(board.list().map((one) => [one.reason, one.count])).toEqual([['out-of-scope', 2], ['expired', 1]]);
  });
});

describe('refusals', () => {
  it('are those that the server counted and those that were heard of since', () => {
    const board = new DenialBoard();
    for (const reason of ['expired', 'out-of-scope', 'expired']) board.apply({ reason, ts: 5 });
    const all = board.since({ expired: 1, 'no-ticket': 7 });
    expect(all.map((one) => [one.reason, one.count, one.last])).toEqual([['no-ticket', 7, null], ['expired', 2, 5], ['out-of-scope', 1, 5]]);
  });
});

describe('inSteps', () => {
  it('leaves nothing out', () => {
    expect(inSteps([1, 2, 3, 4, 5], 2, (some) => some.reduce((a, b) => a + b))).toEqual([3, 7, 5]);
  });
});

describe('fillHours', () => {
  it('gives every hour up to now, with what is known', () => {
    const hour = 3_600_000;
    const filled = fillHours([{ hour_ms: 98 * hour, plays: 3, qualified: 2 }, { hour_ms: 5 * hour, plays: 9, qualified: 9 }], 100 * hour + 5, (hour_ms) => ({ hour_ms, plays: 0, qualified: 0 }), 4);
    expect(filled.map((one) => [one.hour_ms / hour, one.plays])).toEqual([[97, 0], [98, 3], [99, 0], [100, 0]]);
  });
});
