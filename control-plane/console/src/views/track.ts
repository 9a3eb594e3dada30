/** One track in full: who heard it and how far, how it was made, and what can be done with it. */

import { words } from '../api';
import { copyPlaybackUrl, isPlaying, nameOf, playTrack, purge, remove, type App } from '../app';
import { h, setAttr, setText, show } from '../dom';
import { bitrate, bytes, clock, count, decibel, percent, span } from '../format';
import { icon, setIcon, type IconName } from '../icons';
import type { PlayEvent, Stats, Track } from '../model';
import { Artwork } from './artwork';
import { Completion, Hourly } from './charts';
import { COUNTED } from './library';

/** A busy track asks for its figures at most this often. */
const STATS_EVERY_MS = 700;

export class TrackView {
  readonly element: HTMLElement;
  private readonly art: Artwork;
  private readonly title = h('h1', { tabindex: -1, 'data-testid': 'detail-title' });
  private readonly byline = h('p', { class: 'byline' });
  private readonly playIcon = icon('play');
  private readonly playLabel = h('span', {}, 'Play');
  private readonly playButton: HTMLButtonElement;
  private readonly buttons: HTMLElement;
  private readonly figures: Record<'qualified' | 'plays' | 'listeners' | 'now' | 'seconds' | 'bytes' | 'cache', HTMLElement>;
  private readonly completion = new Completion();
  private readonly hourly = new Hourly();
  private readonly problem = h('p', { class: 'row-failure', role: 'alert' });
  private readonly facts = h('dl', { class: 'facts' });
  private readonly measured: HTMLElement;
  private due: ReturnType<typeof setTimeout> | null = null;
  private closed = false;

  constructor(
    private readonly app: App,
    readonly id: string,
  ) {
    const withTrack = (work: (track: Track) => void) => () => {
      const track = app.library.get(id);
      if (track) work(track);
    };
    const button = (name: IconName, label: string, testid: string, work: (track: Track) => void, className = '') =>
      h('button', { type: 'button', class: `button ${className}`.trim(), 'data-testid': testid, onclick: withTrack(work) }, icon(name), label);
    this.art = new Artwork(app, 'large');
    this.playButton = h(
      'button',
      { type: 'button', class: 'button primary', 'data-testid': 'detail-play', onclick: withTrack((t) => playTrack(app, t)) },
      this.playIcon,
      this.playLabel,
    );
    this.buttons = h(
      'div',
      { class: 'buttons' },
      this.playButton,
      button('link', 'Copy link', 'detail-copy', (t) => void copyPlaybackUrl(app, t)),
      button('purge', 'Purge', 'detail-purge', (t) => void purge(app, t)),
    );
    const figure = () => h('dd', { class: 'figure' }, '–');
    this.figures = { qualified: figure(), plays: figure(), listeners: figure(), now: figure(), seconds: figure(), bytes: figure(), cache: figure() };
    for (const [name, element] of Object.entries(this.figures)) element.dataset['testid'] = `stat-${name}`;
    const tile = (label: string, value: HTMLElement, title = '') =>
      h('div', { class: 'tile', ...(title ? { title } : {}) }, h('dt', {}, label), value);
    this.measured = h(
      'div',
      { class: 'measured' },
      h(
        'dl',
        { class: 'tiles seven' },
        tile('Plays', this.figures.qualified, COUNTED),
        tile('Started', this.figures.plays, 'Every listening that began, counted or not.'),
        tile('Listeners', this.figures.listeners),
        tile('Playing now', this.figures.now, 'Plays whose listener still has something to hear.'),
        tile('Time heard', this.figures.seconds),
        tile('Delivered', this.figures.bytes),
        tile('From the cache', this.figures.cache, 'Share of answers for which the origin was not asked.'),
      ),
      h(
        'div',
        { class: 'charts' },
        h('section', { class: 'panel' }, h('h2', {}, 'How far listeners get'), this.completion.element),
        h('section', { class: 'panel' }, h('h2', {}, 'Plays by hour'), this.hourly.element),
      ),
    );
    this.element = h(
      'article',
      { class: 'detail', 'data-testid': 'detail' },
      h('a', { class: 'back', href: '#/' }, icon('back'), 'Library'),
      h(
        'header',
        { class: 'detail-head' },
        this.art.element,
        h('div', { class: 'detail-words' }, this.title, this.byline, this.problem),
        this.buttons,
      ),
      this.measured,
      h(
        'section',
        { class: 'panel' },
        h('h2', {}, 'How it was made'),
        this.facts,
        h(
          'div',
          { class: 'panel-foot' },
          button('trash', 'Delete track', 'detail-delete', (t) => {
            void remove(app, t).then((gone) => {
              if (gone) location.hash = '#/';
            });
          }, 'quiet'),
        ),
      ),
    );
    void this.readStats();
  }

  focus(): void {
    this.title.focus({ preventScroll: true });
  }

  close(): void {
    this.closed = true;
    if (this.due !== null) clearTimeout(this.due);
    this.hourly.destroy();
    this.completion.destroy();
  }

  onPlay(event: PlayEvent): void {
    if (event.track === this.id) this.readStatsSoon();
  }

  /** After a reconnect the figures may have moved without an event. */
  readStatsSoon(): void {
    this.due ??= setTimeout(() => {
      this.due = null;
      void this.readStats();
    }, STATS_EVERY_MS);
  }

  render(): void {
    const track = this.app.library.get(this.id);
    show(this.art.element, track !== undefined);
    show(this.buttons, track?.status === 'ready');
    show(this.measured, track?.status === 'ready');
    if (!track) {
      setText(this.title, this.app.library.listed ? 'There is no such track' : 'Loading');
      setText(this.byline, this.app.library.listed ? 'It was deleted, or its address is not right.' : '');
      show(this.problem, false);
      return;
    }
    const playing = isPlaying(this.app, track.track);
    this.art.update(track);
    setText(this.title, nameOf(track));
    setText(this.byline, [track.artist, track.album, clock((track.duration_ms ?? Number.NaN) / 1000)].filter(Boolean).join(' · '));
    show(this.problem, track.status === 'failed');
    setText(this.problem, track.status === 'failed' ? (track.message ?? 'This file could not be made into a stream.') : '');
    setIcon(this.playIcon, playing ? 'pause' : 'play');
    setText(this.playLabel, playing ? 'Pause' : 'Play');
    this.renderFacts(track);
  }

  private renderFacts(track: Track): void {
    const { loudness } = track;
    const facts: [string, string][] = [
      ['File', `${track.filename}, ${bytes(track.bytes)}`],
      ['Added', new Date(track.created_ms).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'short' })],
    ];
    if (track.renditions.length > 0) {
      const rates = [...track.renditions].sort((a, b) => a.bandwidth - b.bandwidth).map(bitrate);
      const codecs = [...new Set(track.renditions.map((one) => one.codecs))].join(', ');
      facts.push(['Renditions', `${rates.map((rate) => rate.replace(' kbit/s', '')).join(', ')} kbit/s (${codecs})`]);
    }
    if (loudness) {
      facts.push([
        'Loudness',
        `${decibel(loudness.input_lufs, 'LUFS')}, peak ${decibel(loudness.input_true_peak, 'dBTP')}, changed by ${decibel(loudness.gain_db, 'dB')}`,
      ]);
    }
    if (track.version) facts.push(['Version', track.version]);
    facts.push(['Track', track.track]);
    const text = JSON.stringify(facts);
    if (this.facts.dataset['shown'] === text) return;
    this.facts.dataset['shown'] = text;
    this.facts.replaceChildren(...facts.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
  }

  private async readStats(): Promise<void> {
    try {
      const stats = await this.app.api.stats(this.id);
      if (!this.closed) this.renderStats(stats);
    } catch (error) {
      setAttr(this.measured, 'title', words(error));
    }
  }

  private renderStats(stats: Stats): void {
    setAttr(this.measured, 'title', null);
    setText(this.figures.qualified, count(stats.qualified));
    setText(this.figures.plays, count(stats.plays));
    setText(this.figures.listeners, count(stats.listeners));
    setText(this.figures.seconds, span(stats.seconds));
    setText(this.figures.bytes, bytes(stats.bytes));
    setText(this.figures.now, count(stats.now.plays));
    setText(this.figures.cache, stats.cache.ratio === null ? '–' : percent(stats.cache.ratio));
    this.completion.update(stats);
    this.hourly.update(stats);
  }
}
