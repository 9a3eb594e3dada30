/**
 * The waveform and the seek bar in one: wavesurfer.js draws the track's own peaks
 * and follows the audio element; pointer, touch and keys are ours, as an ARIA
 * slider. Without peaks the bar is a plain line, and everything still works.
 */

import WaveSurfer from 'wavesurfer.js';
import { h, setAttr, show } from '../dom';
import { clock, spokenClock } from '../format';
import { readPeaks } from './peaks';
import { seekKey } from './seek';

/**
 * The audio element without its source: wavesurfer.js sets and clears `src` as it
 * loads, and hls.js alone may do that to ours.
 */
function withoutSource(audio: HTMLAudioElement): HTMLMediaElement {
  const inert = new Set<PropertyKey>(['removeAttribute', 'load', 'remove']);
  return new Proxy(audio, {
    get(target, name) {
      if (name === 'src' || name === 'currentSrc') return '';
      if (inert.has(name)) return () => undefined;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
    set(target, name, value) {
      return name === 'src' ? true : Reflect.set(target, name, value, target);
    },
  });
}

export interface WaveformHost {
  audio: HTMLAudioElement;
  duration(): number;
  seek(seconds: number): void;
}

export class Waveform {
  readonly element: HTMLElement;
  private readonly canvas = h('div', { class: 'wave-canvas' });
  private readonly line = h('div', { class: 'wave-line' });
  private readonly bubble = h('div', { class: 'wave-bubble', hidden: true });
  private wave: WaveSurfer | null = null;
  private loading: AbortController | null = null;
  private shown: string | null = null;
  /** Where the pointer holds the position while it drags, in seconds. */
  private dragging: number | null = null;

  constructor(private readonly host: WaveformHost) {
    this.element = h(
      'div',
      { class: 'wave', role: 'slider', tabindex: 0, 'aria-label': 'Position', 'aria-valuemin': 0, 'data-testid': 'seek' },
      this.line,
      this.canvas,
      this.bubble,
    );
    this.pointer();
    this.element.addEventListener('keydown', (event) => this.key(event));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.wave?.setOptions(this.colors()));
  }

  /** Draws the peaks found at `url`; `again` gives a fresh URL once if this one is refused. */
  async load(key: string, url: string | null, duration: number, again: () => Promise<string | null>): Promise<void> {
    if (this.shown === key) return;
    this.shown = key;
    this.clear();
    if (!url || duration <= 0) return;
    const loading = new AbortController();
    this.loading = loading;
    const peaks = await this.fetchPeaks(url, again, loading.signal);
    if (!peaks || loading.signal.aborted) return;
    this.wave = WaveSurfer.create({
      container: this.canvas,
      media: withoutSource(this.host.audio),
      peaks: [peaks],
      duration,
      height: 'auto',
      normalize: true,
      interact: false,
      cursorWidth: 0,
      barWidth: 2,
      barGap: 1,
      barRadius: 2,
      barMinHeight: 1,
      hideScrollbar: true,
      autoScroll: false,
      ...this.colors(),
    });
    this.element.classList.add('has-peaks');
  }

  clear(): void {
    this.loading?.abort();
    this.loading = null;
    this.wave?.destroy();
    this.wave = null;
    this.element.classList.remove('has-peaks');
  }

  forget(): void {
    this.shown = null;
    this.clear();
  }

  /** Called as time passes; returns the position to show, which is the finger's while it drags. */
  tick(): number {
    const duration = this.host.duration();
    const at = this.dragging ?? this.host.audio.currentTime;
    const share = duration > 0 ? Math.min(1, at / duration) : 0;
    this.line.style.setProperty('--at', String(share));
    setAttr(this.element, 'aria-valuemax', String(Math.round(duration)));
    setAttr(this.element, 'aria-valuenow', String(Math.round(at)));
    setAttr(this.element, 'aria-valuetext', `${spokenClock(at)} of ${spokenClock(duration)}`);
    return at;
  }

  private async fetchPeaks(
    url: string,
    again: () => Promise<string | null>,
    signal: AbortSignal,
  ): Promise<number[] | null> {
    try {
      let response = await fetch(url, { signal });
      if (response.status === 401 || response.status === 403) {
        const fresh = await again();
        if (!fresh || fresh === url) return null;
        response = await fetch(fresh, { signal });
      }
      return response.ok ? readPeaks(await response.json()) : null;
    } catch {
      // The plain line stands in: a waveform is never worth an error.
      return null;
    }
  }

  private colors(): { waveColor: string; progressColor: string } {
    const style = getComputedStyle(this.element);
    return {
      waveColor: style.getPropertyValue('--wave').trim(),
      progressColor: style.getPropertyValue('--accent').trim(),
    };
  }

  private timeAt(event: PointerEvent): number {
    const box = this.element.getBoundingClientRect();
    const share = box.width > 0 ? (event.clientX - box.left) / box.width : 0;
    return Math.max(0, Math.min(1, share)) * this.host.duration();
  }

  private pointer(): void {
    const { element } = this;
    element.addEventListener('pointerdown', (event) => {
      if (event.button !== 0 || this.host.duration() <= 0) return;
      element.setPointerCapture(event.pointerId);
      this.dragging = this.timeAt(event);
      this.tick();
    });
    element.addEventListener('pointermove', (event) => {
      const at = this.timeAt(event);
      if (this.dragging !== null) {
        this.dragging = at;
        this.tick();
      }
      const visible = this.host.duration() > 0 && (event.pointerType === 'mouse' || this.dragging !== null);
      show(this.bubble, visible);
      if (visible) {
        this.bubble.textContent = clock(at);
        this.bubble.style.setProperty('--at', String(at / this.host.duration()));
      }
    });
    const release = (event: PointerEvent) => {
      show(this.bubble, false);
      if (this.dragging === null) return;
      const to = this.timeAt(event);
      this.dragging = null;
      this.host.seek(to);
      this.tick();
    };
    element.addEventListener('pointerup', release);
    element.addEventListener('pointercancel', () => {
      this.dragging = null;
      show(this.bubble, false);
    });
    element.addEventListener('pointerleave', () => {
      if (this.dragging === null) show(this.bubble, false);
    });
  }

  private key(event: KeyboardEvent): void {
    const at = this.host.audio.currentTime;
    const to = seekKey(event.key, at, this.host.duration());
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    this.host.seek(to);
  }
}
