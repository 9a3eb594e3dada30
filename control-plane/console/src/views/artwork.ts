/** A track's picture; where it has none, a colour of its own and its first letter. */

import { nameOf, type App } from '../app';
import { h, setText } from '../dom';
import type { Track } from '../model';

export class Artwork {
  readonly element: HTMLElement;
  private readonly letter = h('span', { class: 'art-letter', 'aria-hidden': 'true' });
  private image: HTMLImageElement | null = null;
  private url: string | null = null;
  private refreshed = false;

  constructor(
    private readonly app: App,
    className = '',
  ) {
    this.element = h('div', { class: `art ${className}`.trim() }, this.letter);
  }

  update(track: Track): void {
    setText(this.letter, [...nameOf(track)][0]?.toUpperCase() ?? '');
    this.element.style.setProperty('--hue', String(hue(track.track)));
    if (track.artwork === this.url) return;
    this.url = track.artwork;
    this.image?.remove();
    this.image = null;
    if (!track.artwork) return;
    const image = h('img', { alt: '', decoding: 'async', loading: 'lazy', src: track.artwork });
    image.addEventListener('error', () => {
      image.remove();
      // Signed addresses end; the library has a fresh one. Ask once, not for ever.
      if (!this.refreshed) {
        this.refreshed = true;
        this.app.library.refresh(track.track);
      }
    });
    this.image = image;
    this.element.append(image);
  }
}

/** The same colour for the same track, everywhere. */
function hue(id: string): number {
  let hash = 2166136261;
  for (const char of id) hash = Math.imul(hash ^ char.charCodeAt(0), 16777619);
  return (hash >>> 0) % 360;
}
