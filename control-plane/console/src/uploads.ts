/**
 * The upload queue: several files wait, two travel at a time.
 *
 * A file's way: create the track, send the bytes to the storage (whole, or in
 * parts), tell the control plane. Each step can fail on its own; a failed file
 * stays in the list with its reason until it is retried or dismissed, and never
 * stops the others. One that travels in parts can be paused, and goes on with the
 * parts that are missing: after a pause, after a failure, and, where the same file
 * is chosen again, after the page was closed.
 */

import { words } from './api';
import { isInParts, type Job, type PartsUpload, type Track, type Upload } from './model';

const PARALLEL = 2;

export type UploadState = 'waiting' | 'creating' | 'sending' | 'paused' | 'finishing' | 'failed';

export interface UploadItem {
  id: string;
  file: File;
  state: UploadState;
  /** Bytes that the storage has taken. */
  sent: number;
  message: string | null;
  /** The track made for it, once there is one. */
  track: string | null;
  /** Whether it travels in parts, so that it can go on where it was. */
  parts: boolean;
}

interface Begun {
  track: Track;
  upload: Upload | PartsUpload;
}

export interface UploadSteps {
  create(file: File): Promise<Begun>;
  /** What is there of an upload in parts that this page began. */
  again(track: string): Promise<Begun>;
  send(
    track: string,
    upload: Upload | PartsUpload,
    file: File,
    onProgress: (sent: number) => void,
    signal: AbortSignal,
  ): Promise<void>;
  finish(track: string): Promise<{ track: Track; job: Job }>;
  remove(track: string): Promise<void>;
}

export interface UploadWatch {
  onChange(): void;
  /** The moment of a question, handed back with its answer. */
  asking(): number;
  onTrack(track: Track, asked: number): void;
  onJob(job: Job): void;
  onRemoved(track: string): void;
}

export class UploadQueue {
  private readonly items: UploadItem[] = [];
  private readonly aborts = new Map<string, AbortController>();
  private next = 1;

  constructor(
    private readonly steps: UploadSteps,
    private readonly watch: UploadWatch,
    private readonly parallel = PARALLEL,
  ) {}

  add(files: Iterable<File>): number {
    let added = 0;
    for (const file of files) {
      this.items.push({ id: `u${this.next}`, file, state: 'waiting', sent: 0, message: null, track: null, parts: false });
      this.next += 1;
      added += 1;
    }
    if (added > 0) {
      this.watch.onChange();
      this.pump();
    }
    return added;
  }

  list(): readonly UploadItem[] {
    return this.items;
  }

  ofTrack(track: string): UploadItem | undefined {
    return this.items.find((item) => item.track === track);
  }

  /** Whether leaving the page now would lose something. */
  busy(): boolean {
    return this.items.some((item) => item.state !== 'failed' && !(item.state === 'paused' && item.parts));
  }

  retry(id: string): void {
    const item = this.items.find((one) => one.id === id);
    if (!item || (item.state !== 'failed' && item.state !== 'paused')) return;
    if (!item.parts) {
      this.forgetTrack(item);
      item.sent = 0;
    }
    item.state = 'waiting';
    item.message = null;
    this.watch.onChange();
    this.pump();
  }

  /** Stops a file that travels in parts; `retry` lets it go on. */
  pause(id: string): void {
    const item = this.items.find((one) => one.id === id);
    if (!item?.parts || item.state !== 'sending') return;
    item.state = 'paused';
    this.aborts.get(id)?.abort();
    this.watch.onChange();
  }

  /** Stops a file at any step, and takes back the track that was made for it. */
  cancel(id: string): void {
    const at = this.items.findIndex((one) => one.id === id);
    const item = this.items[at];
    if (!item) return;
    this.items.splice(at, 1);
    this.aborts.get(id)?.abort();
    this.forgetTrack(item);
    this.watch.onChange();
    this.pump();
  }

  private forgetTrack(item: UploadItem): void {
    const track = item.track;
    if (!track) return;
    item.track = null;
    this.watch.onRemoved(track);
    // If this fails the server sweeps the abandoned upload by itself.
    this.steps.remove(track).catch(() => undefined);
  }

  private pump(): void {
    let running = this.aborts.size;
    for (const item of this.items) {
      if (running >= this.parallel) return;
      if (item.state !== 'waiting') continue;
      running += 1;
      void this.run(item);
    }
  }

  private async run(item: UploadItem): Promise<void> {
    const abort = new AbortController();
    this.aborts.set(item.id, abort);
    item.state = 'creating';
    this.watch.onChange();
    try {
      const asked = this.watch.asking();
      const known = item.parts ? item.track : null;
      const { track, upload } = await (known ? this.steps.again(known) : this.steps.create(item.file));
      item.track = track.track;
      item.parts = isInParts(upload);
      if (abort.signal.aborted) {
        this.forgetTrack(item);
        return;
      }
      this.watch.onTrack(track, asked);
      item.state = 'sending';
      this.watch.onChange();
      const onProgress = (sent: number) => {
        item.sent = sent;
        this.watch.onChange();
      };
      await this.steps.send(track.track, upload, item.file, onProgress, abort.signal);
      item.state = 'finishing';
      item.sent = item.file.size;
      this.watch.onChange();
      const finishing = this.watch.asking();
      const done = await this.steps.finish(track.track);
      if (abort.signal.aborted) return;
      const at = this.items.indexOf(item);
      if (at >= 0) this.items.splice(at, 1);
      this.watch.onTrack(done.track, finishing);
      this.watch.onJob(done.job);
    } catch (error) {
      if (abort.signal.aborted) return;
      item.state = 'failed';
      item.message = words(error);
    } finally {
      this.aborts.delete(item.id);
      this.watch.onChange();
      this.pump();
    }
  }
}
