/** The library: what travels, what is being made, what can be heard, and what went wrong. */

import {
  copyPlaybackUrl,
  isPlaying,
  nameOf,
  playTrack,
  remove,
  retryJob,
  trackHref,
  type App,
} from '../app';
import { h, KeyedList, setAttr, setText, show } from '../dom';
import { bytes, clock, count, percent, plural } from '../format';
import { icon, setIcon, type IconName } from '../icons';
import type { Stage, Track } from '../model';
import type { UploadItem } from '../uploads';
import { Artwork } from './artwork';

/** Below this many tracks a filter is clutter. */
const FILTER_FROM = 7;

const STAGES: Record<Stage, string> = {
  queued: 'Waiting for a worker',
  fetch: 'Fetching the upload',
  probe: 'Looking into the file',
  measure: 'Measuring loudness',
  encode: 'Encoding',
  publish: 'Publishing',
};

export const COUNTED = 'Counted plays: 30 seconds heard, or half of a track that is shorter.';

export class LibraryView {
  readonly element: HTMLElement;
  private readonly uploads = h('ul', { class: 'uploads', 'aria-label': 'Uploads' });
  private readonly list = h('ul', { class: 'rows', 'aria-label': 'Tracks', 'data-testid': 'library' });
  private readonly head = h(
    'div',
    { class: 'rows-head', 'aria-hidden': 'true' },
    h('span', { class: 'rows-head-title' }, 'Track'),
    h('span', { title: COUNTED }, 'Plays'),
    h('span', {}, 'Length'),
  );
  private readonly summary = h('p', { class: 'summary', 'data-testid': 'summary' });
  private readonly filter = h('input', {
    type: 'search',
    class: 'field',
    placeholder: 'Filter by title or artist',
    'aria-label': 'Filter the library',
    'data-testid': 'filter',
  });
  private readonly filterBox = h('label', { class: 'filter' }, icon('search'), this.filter);
  private readonly empty: HTMLElement;
  private readonly nothing = h('p', { class: 'nothing' }, 'No track matches this filter.');
  private readonly waiting = h('div', { class: 'skeleton', 'aria-hidden': 'true' }, h('i'), h('i'), h('i'));
  private readonly rows: KeyedList<Track>;
  private readonly uploadRows: KeyedList<UploadItem>;

  constructor(private readonly app: App) {
    this.rows = new KeyedList(this.list, (track) => track.track, () => new TrackRow(app));
    this.uploadRows = new KeyedList(this.uploads, (item) => item.id, (item) => new UploadRow(app, item.id));
    this.filter.addEventListener('input', () => this.render());
    this.empty = h(
      'div',
      { class: 'empty', 'data-testid': 'empty' },
      icon('drop', 'big'),
      h('h2', {}, 'Drop music here'),
      h('p', {}, 'MP3, FLAC, WAV, Ogg, AAC and whatever else ffmpeg reads. Each file becomes a stream that you can hear, share and count.'),
      h('button', { type: 'button', class: 'button primary', onclick: () => app.chooseFiles() }, 'Choose files'),
    );
    this.element = h(
      'section',
      { class: 'library', 'aria-labelledby': 'library-title' },
      h(
        'div',
        { class: 'view-head' },
        h('h1', { id: 'library-title' }, 'Library'),
        this.summary,
        this.filterBox,
      ),
      this.uploads,
      this.waiting,
      this.empty,
      this.head,
      this.list,
      this.nothing,
    );
  }

  focusFilter(): boolean {
    if (this.filterBox.hidden) return false;
    this.filter.focus();
    return true;
  }

  render(): void {
    const { library, uploads } = this.app;
    const items = [...uploads.list()];
    const travelling = new Set(items.map((item) => item.track));
    const tracks = library.all().filter((track) => !travelling.has(track.track));
    const wanted = this.filter.value.trim().toLowerCase();
    const seen = wanted
      ? tracks.filter((track) => `${nameOf(track)} ${track.artist ?? ''} ${track.album ?? ''}`.toLowerCase().includes(wanted))
      : tracks;

    this.uploadRows.render(items);
    this.rows.render(seen);
    show(this.uploads, items.length > 0);
    show(this.waiting, !library.listed);
    show(this.empty, library.listed && tracks.length === 0 && items.length === 0);
    show(this.nothing, tracks.length > 0 && seen.length === 0);
    show(this.head, seen.length > 0);
    show(this.filterBox, tracks.length >= FILTER_FROM || wanted !== '');

    const qualified = tracks.reduce((sum, track) => sum + track.qualified, 0);
    setText(this.summary, tracks.length > 0 ? `${plural(tracks.length, 'track')}, ${plural(qualified, 'play')}` : '');
  }
}

function act(name: IconName, label: string, onclick: () => void, testid: string): HTMLButtonElement {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, 'data-testid': testid, onclick }, icon(name));
}

class TrackRow {
  readonly element: HTMLElement;
  private track: Track | null = null;
  private readonly art: Artwork;
  private readonly playIcon = icon('play');
  private readonly playButton: HTMLButtonElement;
  private readonly title = h('a', { class: 'row-title', 'data-testid': 'track-title' });
  private readonly sub = h('p', { class: 'row-sub' });
  private readonly bar = h('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100 }, h('i'));
  private readonly stage = h('span', { class: 'row-stage', 'data-testid': 'stage' });
  private readonly progress = h('div', { class: 'row-progress', 'data-testid': 'progress' }, this.bar, this.stage);
  private readonly failure = h('p', { class: 'row-failure', role: 'alert', 'data-testid': 'failure' });
  private readonly plays = h('span', { class: 'n', 'data-testid': 'track-qualified' });
  private readonly started = h('span', { class: 'of', 'data-testid': 'track-plays' });
  private readonly playsCell = h('div', { class: 'row-plays', title: COUNTED }, this.plays, this.started);
  private readonly length = h('div', { class: 'row-length' });
  private readonly copyButton: HTMLButtonElement;
  private readonly retryButton: HTMLButtonElement;
  private readonly deleteButton: HTMLButtonElement;

  constructor(private readonly app: App) {
    const withTrack = (work: (track: Track) => void) => () => {
      if (this.track) work(this.track);
    };
    this.art = new Artwork(app);
    this.playButton = h('button', { type: 'button', class: 'art-play', 'data-testid': 'play', onclick: withTrack((t) => playTrack(app, t)) }, this.playIcon);
    this.art.element.append(this.playButton);
    this.copyButton = act('link', 'Copy playback link', withTrack((t) => void copyPlaybackUrl(app, t)), 'copy');
    this.retryButton = act('retry', 'Try again', withTrack((t) => {
      const job = app.library.jobOf(t.track);
      if (job) void retryJob(app, job);
    }), 'retry');
    this.deleteButton = act('trash', 'Delete', withTrack((t) => void remove(app, t)), 'delete');
    this.element = h(
      'li',
      { class: 'row', 'data-testid': 'track' },
      this.art.element,
      h('div', { class: 'row-main' }, this.title, this.sub, this.progress, this.failure),
      this.playsCell,
      this.length,
      h('div', { class: 'row-acts' }, this.copyButton, this.retryButton, this.deleteButton),
    );
    this.element.addEventListener('dblclick', withTrack((t) => {
      if (t.playable) playTrack(app, t);
    }));
  }

  update(track: Track): void {
    this.track = track;
    const { status } = track;
    const job = this.app.library.jobOf(track.track);
    this.element.dataset['track'] = track.track;
    this.element.dataset['status'] = status;
    const ready = status === 'ready';
    const name = nameOf(track);
    const playing = isPlaying(this.app, track.track);
    this.element.classList.toggle('current', this.app.player.state.track?.track === track.track);

    this.art.update(track);
    show(this.playButton, track.playable);
    setIcon(this.playIcon, playing ? 'pause' : 'play');
    setAttr(this.playButton, 'aria-label', `${playing ? 'Pause' : 'Play'} ${name}`);
    // A file that failed is known by its file name, ending and all.
    setText(this.title, status === 'failed' ? track.filename : name);
    setAttr(this.title, 'href', trackHref(track.track));
    setText(this.sub, [track.artist, track.album].filter(Boolean).join(' · ') || (track.title ? track.filename : bytes(track.bytes)));

    const working = status === 'queued' || status === 'transcoding' || status === 'uploading';
    show(this.progress, working);
    show(this.sub, !working && status !== 'failed');
    if (working) {
      const share = status === 'transcoding' ? track.progress : 0;
      const stage = status === 'uploading' ? 'Upload not finished yet' : STAGES[track.stage ?? 'queued'] ?? 'Working';
      setText(this.stage, status === 'transcoding' && share > 0 ? `${stage}, ${percent(share)}` : stage);
      this.bar.style.setProperty('--share', String(share));
      setAttr(this.bar, 'aria-valuenow', String(Math.round(share * 100)));
      setAttr(this.bar, 'aria-label', `${name}: ${stage}`);
      show(this.bar, status !== 'uploading');
    }
    show(this.failure, status === 'failed');
    setText(this.failure, status === 'failed' ? (track.message ?? job?.message ?? 'This file could not be made into a stream.') : '');

    setText(this.plays, ready ? count(track.qualified) : '');
    this.plays.toggleAttribute('data-one', track.qualified === 1);
    setText(this.started, ready && track.plays !== track.qualified ? `${count(track.plays)} started` : '');
    setText(this.length, ready ? clock((track.duration_ms ?? Number.NaN) / 1000) : '');
    show(this.copyButton, ready);
    show(this.retryButton, status === 'failed' && job !== undefined);
    show(this.deleteButton, !ready && status !== 'transcoding');
  }
}

class UploadRow {
  readonly element: HTMLElement;
  private readonly name = h('p', { class: 'row-title' });
  private readonly bar = h('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100, 'data-testid': 'upload-bar' }, h('i'));
  private readonly stage = h('span', { class: 'row-stage' });
  private readonly progress = h('div', { class: 'row-progress' }, this.bar, this.stage);
  private readonly failure = h('p', { class: 'row-failure', role: 'alert' });
  private readonly pauseButton: HTMLButtonElement;
  private readonly retryButton: HTMLButtonElement;
  private readonly cancelButton: HTMLButtonElement;

  constructor(app: App, id: string) {
    this.pauseButton = act('pause', 'Pause upload', () => app.uploads.pause(id), 'upload-pause');
    this.retryButton = act('retry', 'Upload again', () => app.uploads.retry(id), 'upload-retry');
    this.cancelButton = act('close', 'Cancel upload', () => app.uploads.cancel(id), 'upload-cancel');
    this.element = h(
      'li',
      { class: 'row upload', 'data-testid': 'upload' },
      h('div', { class: 'art travelling' }, icon('upload')),
      h('div', { class: 'row-main' }, this.name, this.progress, this.failure),
      h('div', { class: 'row-acts' }, this.pauseButton, this.retryButton, this.cancelButton),
    );
  }

  update(item: UploadItem): void {
    const { file, state } = item;
    this.element.dataset['state'] = state;
    const share = file.size > 0 ? item.sent / file.size : state === 'finishing' ? 1 : 0;
    setText(this.name, file.name);
    show(this.progress, state !== 'failed');
    this.bar.style.setProperty('--share', String(share));
    setAttr(this.bar, 'aria-valuenow', String(Math.round(share * 100)));
    setAttr(this.bar, 'aria-label', `Uploading ${file.name}`);
    const stages: Record<UploadItem['state'], string> = {
      waiting: 'Waiting for its turn',
      creating: 'Starting',
      sending: `Uploading, ${bytes(item.sent)} of ${bytes(file.size)}`,
      paused: `Paused at ${bytes(item.sent)} of ${bytes(file.size)}`,
      finishing: 'Handing over',
      failed: '',
    };
    setText(this.stage, stages[state]);
    show(this.failure, state === 'failed');
    setText(this.failure, item.message ?? '');
    show(this.pauseButton, state === 'sending' && item.parts);
    show(this.retryButton, state === 'failed' || state === 'paused');
    const goesOn = item.parts ? 'Go on with the upload' : 'Upload again';
    setAttr(this.retryButton, 'aria-label', goesOn);
    setAttr(this.retryButton, 'title', goesOn);
    setAttr(this.cancelButton, 'aria-label', state === 'failed' ? 'Dismiss' : 'Cancel upload');
    setAttr(this.cancelButton, 'title', state === 'failed' ? 'Dismiss' : 'Cancel upload');
  }
}
