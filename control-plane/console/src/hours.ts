/** The hours of a chart: what the server sums, and the silence in between. */

import type { HourOfPlays } from './model';

const HOUR_MS = 3_600_000;
const HOURS = 24;

/** Every hour of the window, also those in which nobody listened. */
export function fillHours(hourly: HourOfPlays[], now: number, hours = HOURS): HourOfPlays[] {
  const known = new Map(hourly.map((hour) => [Math.floor(hour.hour_ms / HOUR_MS), hour]));
  const last = Math.floor(now / HOUR_MS);
  return Array.from({ length: hours }, (_, at) => {
    const hour = last - hours + 1 + at;
    return known.get(hour) ?? { hour_ms: hour * HOUR_MS, plays: 0, qualified: 0 };
  });
}
