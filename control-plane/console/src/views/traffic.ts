/** The house over time: plays, bytes and where they came from, how quick answers began, what was refused, what is heard most. */

import { words } from '../api';
import { nameOf, trackHref, type App } from '../app';
import { h, setAttr, setText, show } from '../dom';
import { bytes, count, percent, plural, reasonWords, span } from '../format';
import { fillHours, inSteps } from '../hours';
import type { HouseHour, HouseStats } from '../model';
import { Plot } from './plot';

const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 10_000, 100_000, 1_000_000];
const BYTE_STEPS = [1e3, 1e4, 1e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9, 2e9, 5e9, 1e10, 5e10, 1e11, 1e12, 1e13];
const MS_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/** How far back, and how many hours make one bar. */
const RANGES = [
  { label: '24 hours', hours: 24, step: 1 },
  { label: '7 days', hours: 7 * 24, step: 6 },
  { label: '30 days', hours: 30 * 24, step: 24 },
] as const;

/** Figures are read again this often. */
const EVERY_MS = 15_000;

const NONE = (hour_ms: number): HouseHour => ({
  hour_ms,
  plays: 0,
  qualified: 0,
  seconds: 0,
  bytes: 0,
  cached_bytes: 0,
  facts: 0,
  cache_ratio: null,
  ttfb_ms: { p50: null, p95: null, p99: null },
  denials: 0,
});

const whole = (value: number) => (Number.isInteger(value) ? count(value) : '');

export class TrafficView {
  readonly element: HTMLElement;
  private readonly title = h('h1', { tabindex: -1 }, 'Traffic');
  private readonly buttons: HTMLButtonElement[];
  private readonly problem = h('p', { class: 'row-failure', role: 'alert', hidden: true });
  private readonly figures: Record<'playing' | 'listening' | 'counted' | 'heard' | 'delivered' | 'cached' | 'quick', HTMLElement>;
  private readonly plays: Plot;
  private readonly delivered: Plot;
  private readonly cache: Plot;
  private readonly quick: Plot;
  private readonly refused: Plot;
  private readonly reasons = h('ul', { class: 'denials', 'data-testid': 'traffic-reasons' });
  private readonly busiest = h('ol', { class: 'busiest', 'data-testid': 'busiest' });
  private readonly noBusiest = h('p', { class: 'hint' }, 'No track was played in this time.');
  private range: (typeof RANGES)[number] = RANGES[0];
  private readonly timer: ReturnType<typeof setInterval>;
  private due: ReturnType<typeof setTimeout> | null = null;
  private closed = false;

  constructor(private readonly app: App) {
    const time = { kind: 'time', step: 3_600 } as const;
    this.plays = new Plot({
      testid: 'plot-plays',
      series: [
        { label: 'started', color: '--accent-faint', shape: 'bars', say: (n) => `${count(n)} started` },
        { label: 'counted', color: '--accent', shape: 'bars', say: (n) => `${count(n)} counted` },
      ],
      empty: 'Nothing was played in this time.',
      over: time,
      axis: whole,
      steps: WHOLE_STEPS,
    });
    this.delivered = new Plot({
      testid: 'plot-bytes',
      series: [
        { label: 'delivered', color: '--accent-faint', shape: 'bars', say: (n) => `${bytes(n)} delivered` },
        { label: 'of it from the cache', color: '--accent', shape: 'bars', say: (n) => `${bytes(n)} from the cache` },
      ],
      empty: 'Nothing was delivered in this time.',
      over: time,
      axis: (n) => (n === 0 ? '0' : bytes(n)),
      steps: BYTE_STEPS,
    });
    this.cache = new Plot({
      testid: 'plot-cache',
      series: [{ label: 'answers that the origin was not asked for', color: '--accent', shape: 'line', say: (n) => `${percent(n)} from the cache` }],
      empty: 'Nothing was delivered in this time, so there is no share of it.',
      over: time,
      axis: percent,
      top: 1,
      steps: [0.25, 0.5],
    });
    this.quick = new Plot({
      testid: 'plot-ttfb',
      series: [
        { label: 'half of all answers began within', color: '--accent', shape: 'line', say: (n) => `half within ${n} ms` },
        { label: '95 of 100', color: '--muted', shape: 'line', say: (n) => `95 of 100 within ${n} ms` },
      ],
      empty: 'Nothing was delivered in this time.',
      over: time,
      axis: (n) => `${n} ms`,
      steps: MS_STEPS,
    });
    this.refused = new Plot({
      testid: 'plot-denials',
      series: [{ label: 'refused', color: '--bad', shape: 'bars', say: (n) => plural(n, 'request') + ' refused' }],
      empty: 'No request was refused in this time.',
      over: time,
      axis: whole,
      steps: WHOLE_STEPS,
    });
    this.buttons = RANGES.map((range) =>
      h('button', { type: 'button', class: 'tab', 'data-testid': `range-${range.hours}`, onclick: () => this.choose(range) }, range.label),
    );
    const figure = () => h('dd', { class: 'figure' }, '–');
    this.figures = { playing: figure(), listening: figure(), counted: figure(), heard: figure(), delivered: figure(), cached: figure(), quick: figure() };
    for (const [name, element] of Object.entries(this.figures)) element.dataset['testid'] = `traffic-${name}`;
    const tile = (label: string, value: HTMLElement, title: string) => h('div', { class: 'tile', title }, h('dt', {}, label), value);
    const panel = (label: string, ...inside: HTMLElement[]) => h('section', { class: 'panel' }, h('h2', {}, label), ...inside);
    this.element = h(
      'article',
      { class: 'detail traffic', 'data-testid': 'traffic' },
      h('header', { class: 'traffic-head' }, this.title, h('div', { class: 'ranges', role: 'group', 'aria-label': 'How far back' }, ...this.buttons)),
      this.problem,
      h(
        'dl',
        { class: 'tiles seven' },
        tile('Playing now', this.figures.playing, 'Plays whose listener still has something to hear.'),
        tile('Listeners now', this.figures.listening, 'The same, each listener once.'),
        tile('Plays', this.figures.counted, 'Plays that count: 30 seconds heard, or half of a shorter track.'),
        tile('Time heard', this.figures.heard, 'Distinct media that listeners were given.'),
        tile('Delivered', this.figures.delivered, 'Bytes that left the edges.'),
        tile('From the cache', this.figures.cached, 'Share of answers for which the origin was not asked.'),
        tile('Began within', this.figures.quick, '95 of 100 answers began within this time.'),
      ),
      h(
        'div',
        { class: 'charts' },
        panel('Plays', this.plays.element),
        panel('Delivered', this.delivered.element),
        panel('Share from the cache', this.cache.element),
        panel('Time to the first byte', this.quick.element),
        panel('Refused requests', this.refused.element, this.reasons),
        panel('Most played', this.noBusiest, this.busiest),
      ),
    );
    this.choose(RANGES[0]);
    this.timer = setInterval(() => {
      if (document.visibilityState === 'visible') void this.read();
    }, EVERY_MS);
  }

  focus(): void {
    this.title.focus({ preventScroll: true });
  }

  close(): void {
    this.closed = true;
    clearInterval(this.timer);
    if (this.due !== null) clearTimeout(this.due);
    for (const plot of [this.plays, this.delivered, this.cache, this.quick, this.refused]) plot.destroy();
  }

  /** After events, once for a burst of them. */
  soon(): void {
    this.due ??= setTimeout(() => {
      this.due = null;
      void this.read();
    }, 1_000);
  }

  private choose(range: (typeof RANGES)[number]): void {
    this.range = range;
    this.buttons.forEach((button, at) => setAttr(button, 'aria-pressed', String(RANGES[at] === range)));
    void this.read();
  }

  private async read(): Promise<void> {
    const { range } = this;
    try {
      const stats = await this.app.api.house(range.hours);
      if (this.closed || range !== this.range) return;
      show(this.problem, false);
      this.show(stats);
    } catch (error) {
      setText(this.problem, words(error));
      show(this.problem, true);
    }
  }

  private show(stats: HouseStats): void {
    setText(this.figures.playing, count(stats.now.plays));
    setText(this.figures.listening, count(stats.now.listeners));
    setText(this.figures.counted, count(stats.qualified));
    setText(this.figures.heard, span(stats.seconds));
    setText(this.figures.delivered, bytes(stats.bytes));
    setText(this.figures.cached, stats.cache.ratio === null ? '–' : percent(stats.cache.ratio));
    setText(this.figures.quick, stats.ttfb_ms.p95 === null ? '–' : `${Math.ceil(stats.ttfb_ms.p95)} ms`);
    const hours = fillHours(stats.hourly, Date.now(), NONE, this.range.hours);
    const steps = inSteps(hours, this.range.step, join);
    const seconds = this.range.step * 3_600;
    const x = steps.map((one) => one.hour_ms / 1000);
    const draw = (plot: Plot, summary: string, ...values: (number | null)[][]) => plot.update(x, values, summary, seconds);
    draw(this.plays, `${plural(stats.qualified, 'counted play')} in the last ${this.range.label}`, steps.map((one) => one.plays), steps.map((one) => one.qualified));
    draw(this.delivered, `${bytes(stats.bytes)} delivered in the last ${this.range.label}`, steps.map((one) => one.bytes), steps.map((one) => one.cached_bytes));
    draw(this.cache, `${percent(stats.cache.ratio ?? 0)} from the cache in the last ${this.range.label}`, steps.map((one) => one.cache_ratio));
    draw(this.quick, `95 of 100 answers began within ${stats.ttfb_ms.p95 ?? 0} ms`, steps.map((one) => one.ttfb_ms.p50), steps.map((one) => one.ttfb_ms.p95));
    draw(this.refused, `${plural(stats.denials.total, 'request')} refused in the last ${this.range.label}`, steps.map((one) => one.denials));
    const reasons = Object.entries(stats.denials.by_reason).sort((a, b) => b[1] - a[1]);
    this.reasons.replaceChildren(...reasons.map(([reason, times]) => bar(sentence(reasonWords(reason)), count(times), times / Math.max(1, stats.denials.total), 'refused')));
    const most = Math.max(1, ...stats.tracks.map((one) => one.plays));
    this.busiest.replaceChildren(
      ...stats.tracks.map((one) => {
        const track = this.app.library.get(one.track);
        const name = track ? h('a', { href: trackHref(one.track) }, nameOf(track)) : h('span', {}, 'A deleted track');
        return bar(name, `${count(one.qualified)} counted of ${count(one.plays)}`, one.plays / most, '');
      }),
    );
    show(this.reasons, reasons.length > 0);
    show(this.busiest, stats.tracks.length > 0);
    show(this.noBusiest, stats.tracks.length === 0);
  }
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function bar(label: HTMLElement | string, value: string, share: number, kind: string): HTMLElement {
  const line = h('div', { class: `bar ${kind}`.trim() }, h('i'));
  line.style.setProperty('--share', String(share));
  return h('li', { class: 'denial' }, h('div', { class: 'play-line' }, h('span', { class: 'reason' }, label), h('span', { class: 'n' }, value)), line);
}

/** Some hours as one. Percentiles do not add up: the worst of the hours stands for them all. */
function join(hours: HouseHour[]): HouseHour {
  const sum = (of: (hour: HouseHour) => number) => hours.reduce((all, hour) => all + of(hour), 0);
  const worst = (of: (hour: HouseHour) => number | null) =>
    hours.reduce<number | null>((most, hour) => (of(hour) === null ? most : Math.max(most ?? 0, of(hour) ?? 0)), null);
  const facts = sum((hour) => hour.facts);
  return {
    hour_ms: hours[0]?.hour_ms ?? 0,
    plays: sum((hour) => hour.plays),
    qualified: sum((hour) => hour.qualified),
    seconds: sum((hour) => hour.seconds),
    bytes: sum((hour) => hour.bytes),
    cached_bytes: sum((hour) => hour.cached_bytes),
    facts,
    cache_ratio: facts > 0 ? sum((hour) => (hour.cache_ratio ?? 0) * hour.facts) / facts : null,
    ttfb_ms: { p50: worst((hour) => hour.ttfb_ms.p50), p95: worst((hour) => hour.ttfb_ms.p95), p99: worst((hour) => hour.ttfb_ms.p99) },
    denials: sum((hour) => hour.denials),
  };
}
