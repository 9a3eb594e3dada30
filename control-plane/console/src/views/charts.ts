/** The two charts of a track: how far listeners get, and plays by hour. */

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { h, setAttr, setText } from '../dom';
import { count, percent, plural } from '../format';
import { fillHours } from '../hours';
import type { HourOfPlays, Stats } from '../model';

const CHART_HEIGHT = 180;

/** Of all plays that began, the share that reached each quarter of the track. */
export class Completion {
  readonly element: HTMLElement;
  private readonly columns = ['Start', '25 %', '50 %', '75 %', 'End'].map((label) => {
    const value = h('span', { class: 'column-value' });
    const bar = h('div', { class: 'column-bar' }, h('i'));
    return { value, bar, element: h('li', { class: 'column' }, value, bar, h('span', { class: 'column-label' }, label)) };
  });

  constructor() {
    this.element = h('ol', { class: 'columns', 'data-testid': 'completion' }, ...this.columns.map((one) => one.element));
  }

  update(stats: Stats): void {
    const reached = [stats.plays, ...stats.quartiles.slice(0, 4)];
    this.columns.forEach((column, at) => {
      const plays = reached[at] ?? 0;
      const share = stats.plays > 0 ? plays / stats.plays : 0;
      setText(column.value, stats.plays > 0 ? percent(share) : '–');
      setAttr(column.element, 'title', plural(plays, 'play'));
      column.bar.style.setProperty('--share', String(share));
    });
  }
}

export class Hourly {
  readonly element = h('div', { class: 'hourly', role: 'img', 'data-testid': 'hourly' });
  private readonly legend = h('p', { class: 'legend' });
  private readonly canvas = h('div', { class: 'hourly-canvas' });
  private plot: uPlot | null = null;
  private hours: HourOfPlays[] = [];
  private readonly resize = new ResizeObserver(() => {
    const { clientWidth } = this.canvas;
    if (this.plot && clientWidth > 0 && this.plot.width !== clientWidth) this.plot.setSize({ width: clientWidth, height: CHART_HEIGHT });
    else if (!this.plot) this.draw();
  });
  private readonly scheme = matchMedia('(prefers-color-scheme: dark)');
  private readonly redraw = () => {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  };

  constructor() {
    this.element.append(this.canvas, this.legend);
    this.resize.observe(this.canvas);
    this.scheme.addEventListener('change', this.redraw);
    this.say(null);
  }

  update(stats: Stats): void {
    this.hours = fillHours(stats.hourly, Date.now());
    const counted = this.hours.reduce((sum, hour) => sum + hour.qualified, 0);
    setAttr(this.element, 'aria-label', `Plays by hour: ${plural(counted, 'counted play')} in the last 24 hours`);
    if (this.plot) this.plot.setData(this.data());
    else this.draw();
    this.say(null);
  }

  destroy(): void {
    this.resize.disconnect();
    this.scheme.removeEventListener('change', this.redraw);
    this.plot?.destroy();
  }

  private data(): uPlot.AlignedData {
    return [
      this.hours.map((hour) => hour.hour_ms / 1000),
      this.hours.map((hour) => hour.plays),
      this.hours.map((hour) => hour.qualified),
    ];
  }

  private say(at: number | null): void {
    const hour = at === null ? null : this.hours[at];
    if (!hour) {
      const started = this.hours.reduce((sum, one) => sum + one.plays, 0);
      const counted = this.hours.reduce((sum, one) => sum + one.qualified, 0);
      setText(this.legend, `Last 24 hours: ${count(started)} started, ${count(counted)} counted`);
      return;
    }
    const from = new Date(hour.hour_ms).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
    setText(this.legend, `${from}: ${count(hour.plays)} started, ${count(hour.qualified)} counted`);
  }

  private draw(): void {
    const { clientWidth } = this.canvas;
    if (clientWidth === 0 || this.hours.length === 0) return;
    const style = getComputedStyle(this.element);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const font = `12px ${style.fontFamily}`;
    const bars = uPlot.paths.bars?.({ size: [0.72, 28], radius: 0.18, align: 1 });
    if (!bars) return;
    const series = (fill: string): uPlot.Series => ({ fill, stroke: fill, width: 0, paths: bars, points: { show: false } });
    this.plot = new uPlot(
      {
        width: clientWidth,
        height: CHART_HEIGHT,
        padding: [8, 4, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { setScale: false } },
        scales: { x: { range: (_, from, to) => [from, to + 3600] }, y: { range: (_, __, most) => [0, Math.max(4, Math.ceil(most * 1.1))] } },
        axes: [
          {
            font,
            stroke: color('--muted'),
            grid: { show: false },
            ticks: { show: false },
            size: 26,
            space: 56,
            values: (_, at) =>
              at.map((second) => new Date(second * 1000).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' })),
          },
          {
            font,
            stroke: color('--muted'),
            size: 34,
            grid: { stroke: color('--line'), width: 1 },
            ticks: { show: false },
            incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 10_000, 100_000],
            values: (_, at) => at.map((value) => (Number.isInteger(value) ? count(value) : '')),
          },
        ],
        series: [{}, series(color('--accent-faint')), series(color('--accent'))],
        hooks: { setCursor: [(plot) => this.say(plot.cursor.idx ?? null)] },
      },
      this.data(),
      this.canvas,
    );
  }
}
