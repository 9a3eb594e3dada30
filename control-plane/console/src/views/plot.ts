/**
 * One chart: bars and lines over hours, or over the length of a track. It says its units on its axes, what is under the pointer in a
 * tip beside it, and why there is nothing to see where there is nothing.
 */

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { h, setAttr, setText, show } from '../dom';

const HEIGHT = 180;
/** Room for `100 MB` beside the axis. */
const AXIS_WIDTH = 52;

export interface Series {
  label: string;
  /** A custom property that holds the colour. */
  color: string;
  shape: 'bars' | 'line' | 'area';
  /** How a value is told. */
  say: (value: number) => string;
}

export interface PlotOptions {
  testid: string;
  series: Series[];
  /** What stands there while there is nothing. */
  empty: string;
  /** Hours (`x` in seconds since the epoch, a step wide), or parts of a track (`x` in percent). */
  over: { kind: 'time'; step: number } | { kind: 'share' };
  /** Values on the axis. */
  axis: (value: number) => string;
  /** The axis ends here; else where the values do. */
  top?: number;
  /** Steps that the axis may take. */
  steps: number[];
}

export class Plot {
  readonly element: HTMLElement;
  private readonly canvas = h('div', { class: 'plot-canvas' });
  private readonly tip = h('div', { class: 'plot-tip', hidden: true });
  private readonly nothing: HTMLElement;
  private plot: uPlot | null = null;
  private data: (number | null)[][] = [[]];
  private step: number;
  private readonly resize = new ResizeObserver(() => this.fit());
  private readonly scheme = matchMedia('(prefers-color-scheme: dark)');
  private readonly redraw = () => {
    this.plot?.destroy();
    this.plot = null;
    this.fit();
  };

  constructor(private readonly options: PlotOptions) {
    this.step = options.over.kind === 'time' ? options.over.step : 0;
    this.nothing = h('p', { class: 'plot-empty' }, options.empty);
    const key = options.series.map((one) =>
      h('li', {}, h('i', { class: `swatch ${one.shape}`, style: `--swatch: var(${one.color})` }), one.label),
    );
    this.element = h(
      'div',
      { class: 'plot', role: 'img', 'data-testid': options.testid },
      h('div', { class: 'plot-area' }, this.canvas, this.nothing, this.tip),
      h('ul', { class: 'plot-key' }, ...key),
    );
    this.resize.observe(this.canvas);
    this.scheme.addEventListener('change', this.redraw);
  }

  /** `step`: seconds from one `x` to the next. `summary`: the chart in a sentence, for those who do not see it. */
  update(x: number[], values: (number | null)[][], summary: string, step = this.step): void {
    this.data = [x, ...values];
    const some = values.some((series) => series.some((value) => value !== null && value > 0));
    show(this.nothing, !some);
    this.element.classList.toggle('nothing', !some);
    this.element.dataset['filled'] = String(some);
    setAttr(this.element, 'aria-label', some ? summary : this.options.empty);
    if (step !== this.step) {
      this.step = step;
      this.redraw();
    } else if (this.plot) this.plot.setData(this.data as uPlot.AlignedData);
    else this.fit();
  }

  destroy(): void {
    this.resize.disconnect();
    this.scheme.removeEventListener('change', this.redraw);
    this.plot?.destroy();
  }

  private fit(): void {
    const { clientWidth: width } = this.canvas;
    if (width === 0 || (this.data[0]?.length ?? 0) === 0) return;
    if (!this.plot) this.draw(width);
    else if (this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT });
  }

  private draw(width: number): void {
    const style = getComputedStyle(this.element);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const font = `12px ${style.fontFamily}`;
    const bars = uPlot.paths.bars?.({ size: [0.72, 28], radius: 0.18, align: 1 });
    const series = this.options.series.map(({ shape, color: name }): uPlot.Series => {
      if (shape === 'bars' && bars) {
        return { fill: color(name), stroke: color(name), width: 0, paths: bars, points: { show: false } };
      }
      const line: uPlot.Series = { stroke: color(name), width: 2, points: { show: false }, spanGaps: false };
      // An hour between two silent ones has no line to either side.
      if (shape === 'line') return { ...line, points: { show: true, size: 5, fill: color(name), stroke: color(name) } };
      return shape === 'area' ? { ...line, fill: `color-mix(in srgb, ${color(name)} 18%, transparent)` } : line;
    });
    const { over, top, axis, steps } = this.options;
    const timed = over.kind === 'time';
    const plain: uPlot.Axis = { font, stroke: color('--muted'), ticks: { show: false } };
    this.plot = new uPlot(
      {
        width,
        height: HEIGHT,
        // The last label on the axis is half as wide as this beyond its place.
        padding: [8, 18, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false, setScale: false } },
        scales: {
          x: timed ? { range: (_, from, to) => [from, to + this.step] } : { time: false, range: [0, 100] },
          y: { range: (_, __, most) => [0, top ?? Math.max(steps[0] ?? 1, (most ?? 0) * 1.1)] },
        },
        axes: [
          {
            ...plain,
            grid: { show: false },
            size: 26,
            space: 56,
            ...(timed ? {} : { incrs: [25, 50] }),
            values: (_, at) => at.map((value) => (timed ? this.clock(value) : `${value} %`)),
          },
          {
            ...plain,
            size: AXIS_WIDTH,
            grid: { stroke: color('--line'), width: 1 },
            incrs: steps,
            values: (_, at) => at.map(axis),
          },
        ],
        series: [{}, ...series],
        hooks: { setCursor: [(plot) => this.point(plot)] },
      },
      this.data as uPlot.AlignedData,
      this.canvas,
    );
  }

  private clock(second: number): string {
    const date = new Date(second * 1000);
    if (this.step >= 86_400 || (date.getHours() === 0 && date.getMinutes() === 0)) {
      return date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
    }
    return date.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  }

  /** When, or where in the track. */
  private place(x: number): string {
    if (this.options.over.kind === 'share') return `${x} % of the track`;
    const date = new Date(x * 1000);
    const day = date.toLocaleDateString('en-GB', { weekday: 'short', day: 'numeric', month: 'short' });
    if (this.step >= 86_400) return day;
    const time = (at: Date) => at.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
    return `${day}, ${time(date)} to ${time(new Date((x + this.step) * 1000))}`;
  }

  private point(plot: uPlot): void {
    const { idx, left } = plot.cursor;
    const x = idx === null || idx === undefined ? undefined : this.data[0]?.[idx];
    if (x === undefined || x === null || left === undefined || left < 0 || idx === null || idx === undefined) {
      show(this.tip, false);
      return;
    }
    const lines = this.options.series.map((one, at) => {
      const value = this.data[at + 1]?.[idx];
      return h('li', {}, h('i', { class: `swatch ${one.shape}`, style: `--swatch: var(${one.color})` }), value === null || value === undefined ? `${one.label}: none` : one.say(value));
    });
    const title = h('b');
    setText(title, this.place(x));
    this.tip.replaceChildren(title, h('ul', {}, ...lines));
    show(this.tip, true);
    // Beside the pointer, on the side where there is room.
    const at = AXIS_WIDTH + left;
    const right = at > this.canvas.clientWidth / 2;
    this.tip.style.left = right ? 'auto' : `${at + 12}px`;
    this.tip.style.right = right ? `${this.canvas.clientWidth - at + 12}px` : 'auto';
  }
}
