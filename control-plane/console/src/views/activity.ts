/** What happens right now: plays as they are counted, and requests that the edge refused. */

import { nameOf, trackHref, type App } from '../app';
import { h, KeyedList, setAttr, setText, show } from '../dom';
import { ago, count, plural, reasonWords } from '../format';
import type { LivePlay, Refusals } from '../plays';

const SHOWN_PLAYS = 12;
const QUARTERS = [25, 50, 75, 100];

export class ActivityView {
  readonly element: HTMLElement;
  private readonly now = h('span', { class: 'figure', 'data-testid': 'plays-now' }, '0');
  private readonly nowLabel = h('span', { class: 'figure-label' }, 'playing now');
  private readonly listening = h('span', { class: 'figure', 'data-testid': 'listeners-now' }, '0');
  private readonly listeningLabel = h('span', { class: 'figure-label' }, 'listeners now');
  private readonly total = h('span', { class: 'figure', 'data-testid': 'plays-total' }, '0');
  private readonly totalLabel = h('span', { class: 'figure-label' }, 'plays counted');
  private readonly list = h('ul', { class: 'plays', 'data-testid': 'live-plays' });
  private readonly noPlays = h(
    'p',
    { class: 'hint' },
    'Plays show up here as they begin. Press play on a track, or open its playback link in any player.',
  );
  private readonly denials = h('ul', { class: 'denials', 'data-testid': 'denials' });
  private readonly noDenials = h('p', { class: 'hint' }, 'None in the last 24 hours.');
  private readonly denied = h('span', { class: 'badge' });
  /** What the bars are parts of. */
  private readonly refused = { total: 0 };
  private readonly rows: KeyedList<LivePlay>;
  private readonly reasons: KeyedList<Refusals>;

  constructor(private readonly app: App) {
    this.rows = new KeyedList(this.list, (play) => play.play, () => new PlayRow(app));
    this.reasons = new KeyedList(this.denials, (one) => one.reason, () => new ReasonRow(this.refused));
    this.element = h(
      'aside',
      { class: 'activity', 'aria-label': 'Activity' },
      h(
        'section',
        { class: 'panel' },
        h('h2', {}, 'Live plays'),
        h(
          'div',
          { class: 'figures' },
          h('p', { title: 'Plays whose listener still has something to hear.' }, this.now, this.nowLabel),
          h('p', {}, this.listening, this.listeningLabel),
          h('p', { 'aria-live': 'polite' }, this.total, this.totalLabel),
        ),
        this.noPlays,
        this.list,
      ),
      h(
        'section',
        { class: 'panel' },
        h('h2', {}, 'Refused in 24 hours', this.denied),
        this.noDenials,
        this.denials,
      ),
    );
    // Ages grow without events.
    setInterval(() => {
      if (document.visibilityState === 'visible') this.render();
    }, 5_000);
  }

  render(): void {
    const at = Date.now();
    const { plays, denials, library } = this.app;
    // The server knows of plays that began before this page was opened; what has just begun, this page knows first.
    const active = this.app.house.day?.now.plays ?? plays.active(at).length;
    const listening = this.app.house.day?.now.listeners ?? active;
    setText(this.listening, count(listening));
    setText(this.listeningLabel, listening === 1 ? 'listener now' : 'listeners now');
    const counted = library.all().reduce((sum, track) => sum + track.qualified, 0);
    setText(this.now, count(active));
    setText(this.total, count(counted));
    setText(this.totalLabel, counted === 1 ? 'play counted' : 'plays counted');
    const shown = plays.list().slice(0, SHOWN_PLAYS);
    this.rows.render(shown);
    show(this.list, shown.length > 0);
    show(this.noPlays, shown.length === 0);
    const reasons = denials.since(this.app.house.day?.denials.by_reason ?? {});
    const refused = reasons.reduce((sum, one) => sum + one.count, 0);
    this.refused.total = refused;
    this.reasons.render(reasons);
    show(this.denials, reasons.length > 0);
    show(this.noDenials, reasons.length === 0);
    show(this.denied, refused > 0);
    setText(this.denied, count(refused));
  }
}

class PlayRow {
  readonly element: HTMLElement;
  private readonly title = h('a', { class: 'play-title' });
  private readonly state = h('span', { class: 'play-state' });
  private readonly pips = h('span', { class: 'pips', role: 'img' }, ...QUARTERS.map(() => h('i')));

  constructor(private readonly app: App) {
    this.element = h(
      'li',
      { class: 'play', 'data-testid': 'live-play' },
      h('div', { class: 'play-line' }, this.title, this.pips),
      this.state,
    );
  }

  update(play: LivePlay): void {
    const track = this.app.library.get(play.track);
    this.element.classList.toggle('ended', play.ended);
    this.element.classList.toggle('qualified', play.qualified);
    this.element.dataset['qualified'] = String(play.qualified);
    setText(this.title, track ? nameOf(track) : 'A deleted track');
    setAttr(this.title, 'href', track ? trackHref(play.track) : null);
    const state = play.ended ? (play.qualified ? 'Ended, counted' : 'Ended before it counted') : play.qualified ? 'Counted' : 'Started';
    setText(this.state, `${state}, ${ago(play.since, Date.now())}`);
    setAttr(this.pips, 'aria-label', `${play.quartile} % delivered`);
    [...this.pips.children].forEach((pip, at) => pip.classList.toggle('on', play.quartile >= (QUARTERS[at] ?? 101)));
  }
}

class ReasonRow {
  readonly element: HTMLElement;
  private readonly reason = h('span', { class: 'reason' });
  private readonly count = h('span', { class: 'n' });
  private readonly last = h('span', { class: 'play-state' });
  private readonly bar = h('div', { class: 'bar refused' }, h('i'));

  constructor(private readonly all: { total: number }) {
    this.element = h('li', { class: 'denial' }, h('div', { class: 'play-line' }, this.reason, this.count), this.bar, this.last);
  }

  update(one: Refusals): void {
    const words = reasonWords(one.reason);
    setText(this.reason, words.charAt(0).toUpperCase() + words.slice(1));
    setText(this.count, count(one.count));
    setAttr(this.count, 'aria-label', plural(one.count, 'request'));
    show(this.last, one.last !== null);
    if (one.last !== null) setText(this.last, `Last ${ago(one.last, Date.now())}`);
    this.bar.style.setProperty('--share', String(one.count / Math.max(1, this.all.total)));
  }
}
