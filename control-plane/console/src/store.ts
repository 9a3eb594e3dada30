/**
 * The library as this page knows it. The server's word replaces ours whole,
 * track by track; nothing here is added up, so nothing can drift.
 *
 * The word comes two ways, as answers and as live events, on connections of
 * their own: an answer may be read after an event that is newer. So an answer
 * counts only where no event about its track came since it was asked for;
 * otherwise the server is asked again.
 */

import type { Api } from './api';
import type { Job, Track } from './model';

/** A burst of plays on one track asks for its counts once in this time. */
const COUNTS_DELAY_MS = 300;

export class Library {
  private tracks = new Map<string, Track>();
  private jobs = new Map<string, Job>();
  private readonly watchers = new Set<() => void>();
  private readonly refreshing = new Map<string, ReturnType<typeof setTimeout>>();
  /** Counts events; the moment that a question is asked at. */
  private moment = 0;
  /** When the last event about a track came, since the last whole list. */
  private readonly heard = new Map<string, number>();
  /** Until the first list has come, "empty" is not known. */
  listed = false;

  constructor(private readonly api: Api) {}

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  async relist(): Promise<void> {
    const asked = this.ask();
    const [tracks, jobs] = await Promise.all([this.api.tracks(), this.api.jobs()]);
    const listed = new Map(tracks.map((track) => [track.track, track]));
    for (const [id, moment] of this.heard) {
      if (moment <= asked) {
        this.heard.delete(id);
        continue;
      }
      const known = this.tracks.get(id);
      if (known) listed.set(id, known);
      else listed.delete(id);
    }
    this.tracks = listed;
    for (const id of this.jobs.keys()) if (!listed.has(id)) this.jobs.delete(id);
    for (const job of jobs) if (listed.has(job.track)) this.keepJob(job);
    this.listed = true;
    this.changed();
  }

  /** Newest first. */
  all(): Track[] {
    return [...this.tracks.values()].sort((a, b) => b.created_ms - a.created_ms || (a.track < b.track ? -1 : 1));
  }

  get(id: string): Track | undefined {
    return this.tracks.get(id);
  }

  /** The newest job of a track. */
  jobOf(id: string): Job | undefined {
    return this.jobs.get(id);
  }

  /** The moment to hand to `answered` with what is asked for now. */
  ask(): number {
    return this.moment;
  }

  /** What an event says of a track: events come in order, so it is the newest word. */
  told(track: Track): void {
    this.hear(track.track);
    this.tracks.set(track.track, track);
    this.changed();
  }

  /** What an answer says of a track that was asked for at `asked`. */
  answered(track: Track, asked: number): void {
    if ((this.heard.get(track.track) ?? 0) > asked) {
      this.refresh(track.track);
      return;
    }
    this.tracks.set(track.track, track);
    this.changed();
  }

  putJob(job: Job): void {
    this.keepJob(job);
    this.changed();
  }

  /** The track is gone, as an event says or as this page did it. */
  drop(id: string): void {
    this.hear(id);
    if (this.tracks.delete(id)) this.changed();
    this.jobs.delete(id);
  }

  /** Asks the server for a track's own words again, soon and once. */
  refresh(id: string, delay = COUNTS_DELAY_MS): void {
    if (this.refreshing.has(id)) return;
    this.refreshing.set(
      id,
      setTimeout(() => {
        this.refreshing.delete(id);
        const asked = this.ask();
        this.api.track(id).then(
          (track) => this.answered(track, asked),
          (error: unknown) => {
            if ((error as { status?: number }).status === 404) this.drop(id);
            // Otherwise the next event, or the list after a reconnect, brings it.
          },
        );
      }, delay),
    );
  }

  private hear(id: string): void {
    this.moment += 1;
    this.heard.set(id, this.moment);
  }

  /** Keeps the newest job of a track, and of one job the newest state. */
  private keepJob(job: Job): void {
    const known = this.jobs.get(job.track);
    const newer = known?.job === job.job ? job.updated_ms >= known.updated_ms : !known || job.created_ms >= known.created_ms;
    if (newer) this.jobs.set(job.track, job);
  }

  private changed(): void {
    for (const watcher of this.watchers) watcher();
  }
}
