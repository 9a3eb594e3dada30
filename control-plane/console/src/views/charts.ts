/** The two charts of a track: how far listeners get, and plays by hour. */

import { count, percent, plural } from '../format';
import { fillHours } from '../hours';
import type { HourOfPlays, Stats } from '../model';
import { Plot } from './plot';

const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 10_000, 100_000];

/** Of all plays that began, the share that was given each tenth of the track or more. */
export class Completion {
  private readonly plot = new Plot({
    testid: 'completion',
    series: [{ label: 'plays that got this far', color: '--accent', shape: 'area', say: (share) => `${percent(share)} of plays got this far` }],
    empty: 'Nobody has listened yet. The curve shows what share of all plays got how far into the track.',
    over: { kind: 'share' },
    axis: percent,
    top: 1,
    steps: [0.25, 0.5],
  });
  readonly element = this.plot.element;

  update(stats: Stats): void {
    const reached = [stats.plays, ...stats.deciles];
    const shares = reached.map((plays) => (stats.plays > 0 ? plays / stats.plays : 0));
    const x = shares.map((_, at) => at * 10);
    this.plot.update(x, [shares], `Of ${plural(stats.plays, 'play')}, ${percent(shares[5] ?? 0)} reached the middle of the track and ${percent(shares[10] ?? 0)} its end`);
  }

  destroy(): void {
    this.plot.destroy();
  }
}

export class Hourly {
  private readonly plot = new Plot({
    testid: 'hourly',
    series: [
      { label: 'started', color: '--accent-faint', shape: 'bars', say: (plays) => `${count(plays)} started` },
      { label: 'counted', color: '--accent', shape: 'bars', say: (plays) => `${count(plays)} counted` },
    ],
    empty: 'No play in the last 24 hours.',
    over: { kind: 'time', step: 3_600 },
    axis: (value) => (Number.isInteger(value) ? count(value) : ''),
    steps: WHOLE_STEPS,
  });
  readonly element = this.plot.element;

  update(stats: Stats): void {
    const none = (hour_ms: number): HourOfPlays => ({ hour_ms, plays: 0, qualified: 0 });
    const hours = fillHours<HourOfPlays>(stats.hourly, Date.now(), none);
    const counted = hours.reduce((sum, hour) => sum + hour.qualified, 0);
    this.plot.update(
      hours.map((hour) => hour.hour_ms / 1000),
      [hours.map((hour) => hour.plays), hours.map((hour) => hour.qualified)],
      `Plays by hour: ${plural(counted, 'counted play')} in the last 24 hours`,
    );
  }

  destroy(): void {
    this.plot.destroy();
  }
}
