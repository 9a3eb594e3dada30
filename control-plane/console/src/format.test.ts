import { describe, expect, it } from 'vitest';
import { ago, bitrate, bytes, clock, count, decibel, percent, span, spokenClock } from './format';

describe('format', () => {
  it('tells a position', () => {
    expect([0, 59.99, 60, 187, 3729].map(clock)).toEqual(['0:00', '0:59', '1:00', '3:07', '1:02:09']);
    expect([Number.NaN, Infinity, -1, null].map(clock)).toEqual(['–:––', '–:––', '–:––', '–:––']);
    expect(spokenClock(3661)).toBe('1 hour 1 minute 1 second');
    expect(spokenClock(0)).toBe('0 seconds');
  });

  it('tells sizes without a jump at the unit', () => {
    expect([0, 999, 1000, 4_200_000, 123_456_789].map(bytes)).toEqual(['0 B', '999 B', '1.0 kB', '4.2 MB', '123 MB']);
    expect(bytes(999_499)).toBe('999 kB');
    expect(bytes(999_500)).toBe('1.0 MB');
  });

  it('tells time heard', () => {
    expect([48, 720, 12_240, 36_000 * 8, 400_000].map(span)).toEqual(['48 s', '12 min', '3.4 h', '3 days', '5 days']);
  });

  it('tells counts, shares and rates', () => {
    expect([0, 9_999, 12_345].map(count)).toEqual(['0', '9,999', '12.3K']);
    expect([-1, 0.434, 2].map(percent)).toEqual(['0 %', '43 %', '100 %']);
    expect(bitrate({ name: 'a128', bandwidth: 139_000 })).toBe('128 kbit/s');
    expect(bitrate({ name: 'lossless', bandwidth: 900_400 })).toBe('900 kbit/s');
    expect(decibel(-4.66, 'dB')).toBe('−4.7 dB');
    expect(decibel(0.4, 'dBTP')).toBe('+0.4 dBTP');
  });

  it('tells age', () => {
    const now = 1_700_000_000_000;
    expect([0, 40, 300, 7200].map((s) => ago(now - s * 1000, now))).toEqual(['just now', '40 s ago', '5 min ago', '2 h ago']);
    expect(ago(now + 5000, now)).toBe('just now');
  });
});
