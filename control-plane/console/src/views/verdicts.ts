/** The chart of a policy: what it said over the last hour, minute by minute. */

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { h, setAttr, setText } from '../dom';
import { count, plural } from '../format';
import type { Step } from '../policies';

const CHART_HEIGHT = 180;

export class VerdictChart {
  readonly element = h('div', { class: 'hourly', role: 'img', 'data-testid': 'verdicts' });
  private readonly canvas = h('div', { class: 'hourly-canvas' });
  private readonly legend = h('p', { class: 'legend' });
  private plot: uPlot | null = null;
  private steps: Step[] = [];
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
  }

  update(steps: Step[]): void {
    this.steps = steps;
    const asked = steps.reduce((sum, step) => sum + step.allowed + step.denied + step.failed, 0);
    setAttr(this.element, 'aria-label', `Verdicts by minute: ${plural(asked, 'request')} in the last hour`);
    setAttr(this.element, 'data-calls', String(asked));
    if (this.plot) this.plot.setData(this.data());
    else this.draw();
    this.say(null);
  }

  destroy(): void {
    this.resize.disconnect();
    this.scheme.removeEventListener('change', this.redraw);
    this.plot?.destroy();
  }

  /** Bars that stand on one another: each series has the sum of those under it, the tallest is drawn first. */
  private data(): uPlot.AlignedData {
    return [
      this.steps.map((step) => step.at_ms / 1000),
      this.steps.map((step) => step.allowed + step.denied + step.failed),
      this.steps.map((step) => step.denied + step.failed),
      this.steps.map((step) => step.failed),
    ];
  }

  private say(at: number | null): void {
    const step = at === null ? null : this.steps[at];
    const words = (one: { allowed: number; denied: number; failed: number }) =>
      `${count(one.allowed)} let in, ${count(one.denied)} denied${one.failed > 0 ? `, ${count(one.failed)} failed` : ''}`;
    if (step) {
      const from = new Date(step.at_ms).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
      setText(this.legend, `${from}: ${words(step)}`);
      return;
    }
    const sum = { allowed: 0, denied: 0, failed: 0 };
    for (const one of this.steps) {
      sum.allowed += one.allowed;
      sum.denied += one.denied;
      sum.failed += one.failed;
    }
    setText(this.legend, `Last hour: ${words(sum)}`);
  }

  private draw(): void {
    const { clientWidth } = this.canvas;
    if (clientWidth === 0 || this.steps.length === 0) return;
    const style = getComputedStyle(this.element);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const font = `12px ${style.fontFamily}`;
    const bars = uPlot.paths.bars?.({ size: [0.8, 20], align: 1 });
    if (!bars) return;
    const series = (fill: string): uPlot.Series => ({ fill, stroke: fill, width: 0, paths: bars, points: { show: false } });
    this.plot = new uPlot(
      {
        width: clientWidth,
        height: CHART_HEIGHT,
        padding: [8, 16, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { setScale: false } },
        scales: { x: { range: (_, from, to) => [from, to + 60] }, y: { range: (_, __, most) => [0, Math.max(4, Math.ceil(most * 1.1))] } },
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
            size: 40,
            grid: { stroke: color('--line'), width: 1 },
            ticks: { show: false },
            values: (_, at) => at.map((value) => (Number.isInteger(value) ? count(value) : '')),
          },
        ],
        series: [{}, series(color('--accent')), series(color('--bad')), series(color('--line-strong'))],
        hooks: { setCursor: [(plot) => this.say(plot.cursor.idx ?? null)] },
      },
      this.data(),
      this.canvas,
    );
  }
}
