/**
 * The library as this page knows it. The server's word replaces ours whole,
 * track by track; nothing here is added up, so nothing can drift.
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
  /** Until the first list has come, "empty" is not known. */
  listed = false;

  constructor(private readonly api: Api) {}

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  async relist(): Promise<void> {
    const [tracks, jobs] = await Promise.all([this.api.tracks(), this.api.jobs()]);
    this.tracks = new Map(tracks.map((track) => [track.track, track]));
    this.jobs = new Map();
    for (const job of jobs) this.keepJob(job);
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

  put(track: Track): void {
    this.tracks.set(track.track, track);
    this.changed();
  }

  putJob(job: Job): void {
    this.keepJob(job);
    this.changed();
  }

  drop(id: string): void {
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
        this.api.track(id).then(
          (track) => this.put(track),
          (error: unknown) => {
            if ((error as { status?: number }).status === 404) this.drop(id);
            // Otherwise the next event, or the list after a reconnect, brings it.
          },
        );
      }, delay),
    );
  }

  private keepJob(job: Job): void {
    const known = this.jobs.get(job.track);
    if (!known || known.job === job.job || job.created_ms >= known.created_ms) this.jobs.set(job.track, job);
  }

  private changed(): void {
    for (const watcher of this.watchers) watcher();
  }
}
