import { describe, expect, test } from 'vitest';
import { callTime, outcome, question, share, steps, verdictOn, verdictWords, type Policy, type PolicyDiff } from './policies';

const policy: Policy = {
  policy: 'country',
  world: 'access',
  order: 0,
  on_failure: 'closed',
  active: '6',
  candidate: { version: '7', trial: 'canary', percent: 10, since_ms: 0 },
  rollback: { from: '7', to: '6', ends_canary: true },
  versions: [],
  edges: [
    { edge: 'fra', alive: true, deciding: '6', is_kept: false, ready: ['6', '7'], problems: [] },
    { edge: 'ams', alive: true, deciding: '6', is_kept: false, ready: ['6'], problems: [] },
    { edge: 'old', alive: false, deciding: null, is_kept: false, ready: [], problems: [] },
  ],
};

describe('the chart', () => {
  test('has every step, and tells three kinds apart', () => {
    const point = (at_ms: number, verdict: string, calls: number) => ({ at_ms, version: '6', verdict, reason: '', calls, took_ns: 0 });
    const verdicts = {
      from_ms: 60_000,
      step_ms: 60_000,
      points: [point(60_000, 'allow', 3), point(60_000, 'abstain', 2), point(180_000, 'deny', 4), point(180_000, 'trap', 1)],
    };
    expect(steps(verdicts, 200_000)).toEqual([
      { at_ms: 60_000, allowed: 5, denied: 0, failed: 0 },
      { at_ms: 120_000, allowed: 0, denied: 0, failed: 0 },
      { at_ms: 180_000, allowed: 0, denied: 4, failed: 1 },
    ]);
  });
});

describe('words', () => {
  test('for a difference', () => {
    const diff = {
      shadow: '7', active: '6', running: true, since_ms: 0, requests: 10_400, agree: 10_268, differ: 132, newly_denied: 130,
      newly_allowed: 0, would_fail: 2, pairs: [], latency: { active_ns: null, shadow_ns: null },
    } satisfies PolicyDiff;
    expect(verdictOn(diff)).toBe('Of 10.4K requests, 7 would newly deny 130 (1.3 %) and fail at 2 (< 0.1 %).');
    expect(verdictOn({ ...diff, differ: 0 })).toBe('7 says the same about all 10.4K requests.');
    expect(verdictOn({ ...diff, requests: 0 })).toMatch(/was not asked yet/);
  });

  test('for shares, verdicts and times', () => {
    expect([share(0, 10), share(1, 10_000), share(13, 1000), share(10, 10), share(1, 0)]).toEqual(['0 %', '< 0.1 %', '1.3 %', '100 %', '–']);
    expect([verdictWords('deny:too-early'), verdictWords('allow'), verdictWords('none')]).toEqual(['deny, too early', 'allow', 'no version asked']);
    expect([callTime(510), callTime(12_400), callTime(1_400_000), callTime(null)]).toEqual(['0.51 µs', '12 µs', '1.4 ms', '–']);
  });

  test('a question names the edges that are not ready, and only those that are alive', () => {
    const { body } = question(policy, { act: 'active', version: '7' });
    expect(body).toContain('takes the place of 6');
    expect(body).toContain('Not ready yet: ams;');
    expect(body).not.toContain('old');
    expect(question(policy, { act: 'rollback' }).title).toBe('End the canary of country 7?');
    const last = { ...policy, rollback: { from: '6', to: null, ends_canary: false } };
    expect(question(last, { act: 'rollback' }).body).toContain('nobody enforces this rule');
  });

  test('an outcome names the edges that are not there', () => {
    const swapped = { policy, done: 'activate', version: '7', from: '6', edges: { alive: 2, on: ['fra'], not_on: [{ edge: 'ams' }] } };
    expect(outcome(swapped)).toBe('country 7 decides. Not there yet: ams.');
  });
});
