/**
 * The board of live plays, put together from the events of the tally. Events may
 * repeat after a reconnect, and the first one seen may be from mid-play: each is
 * applied so that a repetition changes nothing.
 */

import type { PlayEvent } from './model';

/** The board is a window on the present, not a record: oldest out. */
const MAX_PLAYS = 60;
/** A play ends after 30 minutes without media; past that the `ended` was missed. */
const STALE_MS = 31 * 60_000;

export interface LivePlay {
  play: string;
  track: string;
  /** When it was first heard of, in milliseconds since the epoch. */
  since: number;
  last: number;
  qualified: boolean;
  /** The highest quartile reached: 0, 25, 50, 75 or 100. */
  quartile: number;
  ended: boolean;
}

export class PlayBoard {
  private readonly plays = new Map<string, LivePlay>();

  apply(event: PlayEvent): LivePlay {
    const known = this.plays.get(event.play);
    const play: LivePlay = known ?? {
      play: event.play,
      track: event.track,
      since: event.ts,
      last: event.ts,
      qualified: false,
      quartile: 0,
      ended: false,
    };
    play.since = Math.min(play.since, event.ts);
    play.last = Math.max(play.last, event.ts);
    if (event.type === 'qualified') play.qualified = true;
    if (event.type === 'quartile') play.quartile = Math.max(play.quartile, event.quartile ?? 0);
    if (event.type === 'ended') play.ended = true;
    if (!known) {
      this.plays.set(event.play, play);
      this.trim();
    }
    return play;
  }

  /** Newest first. */
  list(): LivePlay[] {
    return [...this.plays.values()].sort((a, b) => b.since - a.since);
  }

  active(now: number): LivePlay[] {
    return this.list().filter((play) => !play.ended && now - play.last < STALE_MS);
  }

  private trim(): void {
    while (this.plays.size > MAX_PLAYS) {
      let oldest: LivePlay | null = null;
      for (const play of this.plays.values()) {
        if (!oldest || Number(oldest.ended) < Number(play.ended) || (oldest.ended === play.ended && play.last < oldest.last)) {
          oldest = play;
        }
      }
      if (!oldest) return;
      this.plays.delete(oldest.play);
    }
  }
}

/** Refusals for one reason. */
export interface Refusals {
  reason: string;
  count: number;
  /** When the last one was that this page heard of. */
  last: number | null;
}

/** Refusals since the page was opened, by reason. */
export class DenialBoard {
  private readonly byReason = new Map<string, { reason: string; count: number; last: number }>();
  total = 0;

  apply(denial: { reason: string; ts: number }): void {
    const known = this.byReason.get(denial.reason);
    if (known) {
      known.count += 1;
      known.last = Math.max(known.last, denial.ts);
    } else {
      this.byReason.set(denial.reason, { reason: denial.reason, count: 1, last: denial.ts });
    }
    this.total += 1;
  }

  /** With those that the server counted (of which it may not have told yet), most frequent first. */
  since(counted: Record<string, number>): Refusals[] {
    const reasons = new Set([...Object.keys(counted), ...this.byReason.keys()]);
    const all = [...reasons].map((reason) => {
      const heard = this.byReason.get(reason);
      return { reason, count: Math.max(counted[reason] ?? 0, heard?.count ?? 0), last: heard?.last ?? null };
    });
    return all.sort((a, b) => b.count - a.count || (b.last ?? 0) - (a.last ?? 0));
  }

  /** Most frequent first. */
  list(): { reason: string; count: number; last: number }[] {
    return [...this.byReason.values()].sort((a, b) => b.count - a.count || b.last - a.last);
  }
}
