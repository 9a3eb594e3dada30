/** What the views share: the parts of the running page, and the acts that several of them offer. */

import { words, type Api } from './api';
import type { Job, Track } from './model';
import type { House } from './house';
import type { Player } from './player/engine';
import type { DenialBoard, PlayBoard } from './plays';
import type { Library } from './store';
import type { UploadQueue } from './uploads';
import type { Dialogs } from './views/dialogs';

export interface App {
  api: Api;
  library: Library;
  uploads: UploadQueue;
  player: Player;
  plays: PlayBoard;
  denials: DenialBoard;
  house: House;
  dialogs: Dialogs;
  /** Opens the file chooser. */
  chooseFiles(): void;
}

export function nameOf(track: Track): string {
  return track.title?.trim() || track.filename.replace(/\.[^.]{1,5}$/, '') || track.filename;
}

export function trackHref(id: string): string {
  return `#/track/${encodeURIComponent(id)}`;
}

/** Puts a playback URL on the clipboard; where the browser has none to offer, shows it for copying by hand. */
export async function copyPlaybackUrl(app: App, track: Track): Promise<void> {
  try {
    // Without a sid: whoever plays this link is a listener of their own, not this page's.
    const { url, expires } = await app.api.ticket(track.track);
    const until = new Date(expires * 1000).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'short' });
    try {
      await navigator.clipboard.writeText(url);
      app.dialogs.toast(`Playback link copied. It works until ${until}.`);
    } catch {
      await app.dialogs.showLink(`Playback link for “${nameOf(track)}”`, url, `Works until ${until}.`);
    }
  } catch (error) {
    app.dialogs.toast(`No playback link: ${words(error)}`, 'error');
  }
}

export async function purge(app: App, track: Track): Promise<void> {
  try {
    await app.api.purge(track.track);
    app.dialogs.toast(`Purged “${nameOf(track)}”. Edges fetch it anew from storage.`);
  } catch (error) {
    app.dialogs.toast(`Not purged: ${words(error)}`, 'error');
  }
}

/** Returns whether the track is gone. */
export async function remove(app: App, track: Track): Promise<boolean> {
  const sure = await app.dialogs.confirm({
    title: `Delete “${nameOf(track)}”?`,
    body: 'Its audio, its links and its place in the library go for good. This cannot be undone.',
    act: 'Delete track',
  });
  if (!sure) return false;
  try {
    await app.api.remove(track.track);
    if (app.player.state.track?.track === track.track) app.player.unload();
    app.library.drop(track.track);
    app.dialogs.toast(`Deleted “${nameOf(track)}”.`);
    return true;
  } catch (error) {
    app.dialogs.toast(`Not deleted: ${words(error)}`, 'error');
    return false;
  }
}

export async function retryJob(app: App, job: Job): Promise<void> {
  try {
    app.library.putJob(await app.api.retry(job.job));
    app.library.refresh(job.track, 0);
    app.dialogs.toast('Queued again.');
  } catch (error) {
    app.dialogs.toast(`Not retried: ${words(error)}`, 'error');
  }
}

export function playTrack(app: App, track: Track): void {
  const { state } = app.player;
  if (state.track?.track === track.track && state.status !== 'idle') void app.player.toggle();
  else void app.player.play(track);
}

export function isPlaying(app: App, id: string): boolean {
  const { track, status } = app.player.state;
  return track?.track === id && (status === 'playing' || status === 'loading');
}
