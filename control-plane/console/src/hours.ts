/** The hours of a chart: what the server sums, and the silence in between; days where hours would be too many. */

const HOUR_MS = 3_600_000;
const HOURS = 24;

/** Every hour of the window, also those in which nothing was. `none` makes one of those. */
export function fillHours<T extends { hour_ms: number }>(
  hourly: T[],
  now: number,
  none: (hour_ms: number) => T,
  hours = HOURS,
): T[] {
  const known = new Map(hourly.map((hour) => [Math.floor(hour.hour_ms / HOUR_MS), hour]));
  const last = Math.floor(now / HOUR_MS);
  return Array.from({ length: hours }, (_, at) => {
    const hour = last - hours + 1 + at;
    return known.get(hour) ?? none(hour * HOUR_MS);
  });
}

/** Every `size` hours as one: the first hour's time, and what `join` makes of them. */
export function inSteps<T, S>(hours: T[], size: number, join: (some: T[]) => S): S[] {
  const steps: S[] = [];
  for (let at = 0; at < hours.length; at += size) steps.push(join(hours.slice(at, at + size)));
  return steps;
}
