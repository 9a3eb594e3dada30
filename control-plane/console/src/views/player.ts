/** The player bar: always there once something was played, at the bottom of every view. */

import { nameOf, trackHref, type App } from '../app';
import { h, setAttr, setText, show } from '../dom';
import { bitrate, clock } from '../format';
import { icon, setIcon } from '../icons';
import { seekKey } from '../player/seek';
import { Waveform } from '../player/waveform';
import { Artwork } from './artwork';

const VOLUME_KEY = 'segue.volume';

export class PlayerView {
  readonly element: HTMLElement;
  private readonly wave: Waveform;
  private readonly art: Artwork;
  private readonly title = h('a', { class: 'now-title', 'data-testid': 'now-title' });
  private readonly artist = h('p', { class: 'now-artist' });
  private readonly elapsed = h('span', { class: 'time', 'data-testid': 'elapsed' });
  private readonly total = h('span', { class: 'time total' });
  private readonly toggleIcon = icon('play');
  private readonly toggle: HTMLButtonElement;
  private readonly quality = h('select', { class: 'quality', 'aria-label': 'Quality', 'data-testid': 'quality' });
  private readonly muteIcon = icon('volume');
  private readonly mute: HTMLButtonElement;
  private readonly volume = h('input', { type: 'range', class: 'volume', min: 0, max: 100, step: 1, 'aria-label': 'Volume', 'data-testid': 'volume' });
  private readonly status = h('p', { class: 'now-status', role: 'status', 'data-testid': 'player-status' });
  private qualitiesShown = '';

  constructor(private readonly app: App) {
    const { player } = app;
    this.wave = new Waveform({ audio: player.audio, duration: () => player.duration, seek: (to) => player.seek(to) });
    this.art = new Artwork(app, 'small');
    this.toggle = h(
      'button',
      { type: 'button', class: 'toggle', 'data-testid': 'toggle', onclick: () => void player.toggle() },
      this.toggleIcon,
    );
    this.mute = h('button', { type: 'button', class: 'icon-button mute', onclick: () => player.toggleMuted() }, this.muteIcon);
    this.element = h(
      'section',
      { class: 'player', 'aria-label': 'Player', hidden: true, 'data-testid': 'player' },
      player.audio,
      h('div', { class: 'now' }, this.art.element, h('div', { class: 'now-words' }, this.title, this.artist, this.status)),
      this.toggle,
      h('div', { class: 'timeline' }, this.elapsed, this.wave.element, this.total),
      h('div', { class: 'player-side' }, this.quality, h('div', { class: 'loud' }, this.mute, this.volume)),
    );
    this.quality.addEventListener('change', () => player.choose(this.quality.value || null));
    this.volume.addEventListener('input', () => player.setVolume(Number(this.volume.value) / 100));
    this.keepVolume();
    for (const name of ['timeupdate', 'seeking', 'seeked', 'durationchange', 'emptied'] as const) {
      player.audio.addEventListener(name, () => this.tick());
    }
    this.mediaKeys();
  }

  render(): void {
    const { state, audio } = this.app.player;
    const { track } = state;
    show(this.element, track !== null);
    document.body.classList.toggle('has-player', track !== null);
    document.title = track && state.status === 'playing' ? `${nameOf(track)} · Segue` : 'Segue';
    if (!track) {
      this.wave.forget();
      return;
    }
    const playing = state.status === 'playing' || state.status === 'loading';
    this.art.update(track);
    setText(this.title, nameOf(track));
    setAttr(this.title, 'href', trackHref(track.track));
    setText(this.artist, track.artist ?? '');
    setIcon(this.toggleIcon, playing ? 'pause' : 'play');
    setAttr(this.toggle, 'aria-label', playing ? 'Pause' : 'Play');
    this.toggle.classList.toggle('busy', state.buffering && playing);
    this.element.dataset['status'] = state.status;
    const message = state.message ?? '';
    setText(this.status, message);
    show(this.status, message !== '');
    show(this.artist, message === '' && track.artist !== null);
    this.renderQuality();
    setIcon(this.muteIcon, audio.muted || audio.volume === 0 ? 'muted' : 'volume');
    setAttr(this.mute, 'aria-label', audio.muted ? 'Unmute' : 'Mute');
    void this.wave.load(`${track.track}/${track.version ?? ''}`, track.waveform, (track.duration_ms ?? 0) / 1000, async () => {
      const asked = this.app.library.ask();
      const fresh = await this.app.api.track(track.track);
      this.app.library.answered(fresh, asked);
      return fresh.waveform;
    });
    this.tick();
  }

  /** Keys that work wherever the focus is, unless it is on something that wants them itself. */
  onKey(event: KeyboardEvent): void {
    const { player } = this.app;
    if (!player.state.track || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target instanceof Element ? event.target : null;
    if (document.querySelector('dialog[open]') || target?.closest('input, textarea, select, [contenteditable]')) return;
    if (event.key === ' ') {
      // On a button the space bar is the button's.
      if (target?.closest('button')) return;
      event.preventDefault();
      void player.toggle();
    } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      const to = seekKey(event.key, player.audio.currentTime, player.duration);
      if (to === null) return;
      event.preventDefault();
      player.seek(to);
    } else if (event.key.toLowerCase() === 'm') {
      player.toggleMuted();
    }
  }

  private tick(): void {
    const at = this.wave.tick();
    setText(this.elapsed, clock(at));
    setText(this.total, clock(this.app.player.duration));
  }

  private renderQuality(): void {
    const { qualities, heard, chosen } = this.app.player.state;
    const auto = heard && chosen === null ? `Auto, ${bitrate(heard)}` : 'Auto';
    const text = JSON.stringify([qualities, auto, chosen]);
    if (text === this.qualitiesShown) return;
    this.qualitiesShown = text;
    const options = [...qualities].sort((a, b) => b.bandwidth - a.bandwidth).map((one) => {
      const option = h('option', { value: one.name }, bitrate(one));
      option.selected = one.name === chosen;
      return option;
    });
    this.quality.replaceChildren(h('option', { value: '' }, auto), ...options);
    if (chosen === null) this.quality.value = '';
    this.quality.dataset['heard'] = heard?.name ?? '';
    show(this.quality, qualities.length > 0);
  }

  private keepVolume(): void {
    const { player } = this.app;
    try {
      const kept = Number(localStorage.getItem(VOLUME_KEY) ?? '1');
      if (kept >= 0 && kept <= 1) player.audio.volume = kept;
    } catch {
      // Full volume, then.
    }
    const show = () => {
      const level = player.audio.muted ? 0 : player.audio.volume;
      this.volume.value = String(Math.round(level * 100));
      this.volume.style.setProperty('--share', String(level));
      this.render();
    };
    player.audio.addEventListener('volumechange', () => {
      try {
        localStorage.setItem(VOLUME_KEY, String(player.audio.volume));
      } catch {
        // Not kept; nothing else depends on it.
      }
      show();
    });
    show();
  }

  /** Lock screens, headphones and keyboards with media keys. */
  private mediaKeys(): void {
    const session = navigator.mediaSession;
    if (!session) return;
    const { player } = this.app;
    const handle = (action: MediaSessionAction, act: (details: MediaSessionActionDetails) => void) => {
      try {
        session.setActionHandler(action, act);
      } catch {
        // An action that this browser does not know.
      }
    };
    handle('play', () => void player.toggle());
    handle('pause', () => player.audio.pause());
    handle('seekbackward', () => player.seek(player.audio.currentTime - 10));
    handle('seekforward', () => player.seek(player.audio.currentTime + 10));
    handle('seekto', (details) => {
      if (details.seekTime !== undefined) player.seek(details.seekTime);
    });
    let shown: string | null = null;
    player.watch(() => {
      const { track } = player.state;
      if ((track?.track ?? null) === shown) return;
      shown = track?.track ?? null;
      session.metadata = track
        ? new MediaMetadata({
            title: nameOf(track),
            artist: track.artist ?? '',
            album: track.album ?? '',
            artwork: track.artwork ? [{ src: track.artwork }] : [],
          })
        : null;
    });
  }
}
