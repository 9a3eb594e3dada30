/** What a shadow would have said otherwise: a sentence, the pairs of verdicts, and examples of each. */

import { h, setText, show } from '../dom';
import { ago, count } from '../format';
import { callTime, share, verdictOn, verdictWords, type PolicyDiff, type PolicyPair } from '../policies';

export class Difference {
  readonly element: HTMLElement;
  private readonly heading = h('h2', {});
  private readonly sentence = h('p', { class: 'diff-sentence', 'data-testid': 'diff' });
  private readonly pairs = h('div', { class: 'pairs' });
  private readonly times = h('p', { class: 'hint' });
  private shown = '';

  constructor() {
    this.element = h('section', { class: 'panel', hidden: true }, this.heading, this.sentence, this.pairs, this.times);
  }

  update(diff: PolicyDiff | null): void {
    show(this.element, diff !== null);
    if (!diff) return;
    const beside = diff.active ?? 'no version';
    setText(this.heading, diff.running ? `${diff.shadow} as shadow beside ${beside}` : `${diff.shadow} was a shadow beside ${beside}`);
    setText(this.sentence, verdictOn(diff));
    setText(
      this.times,
      diff.requests > 0
        ? `A call of ${diff.shadow} takes ${callTime(diff.latency.shadow_ns)}, one of ${beside} ${callTime(diff.latency.active_ns)}.`
        : '',
    );
    // Rebuilt only where something changed, so that an opened list of examples stays open.
    const differing = diff.pairs.filter((pair) => pair.effect !== 'same');
    const now = JSON.stringify(differing.map((pair) => [pair.said, pair.would, pair.count]));
    if (now === this.shown) return;
    this.shown = now;
    const open = new Set([...this.pairs.querySelectorAll('details[open]')].map((one) => (one as HTMLElement).dataset['pair']));
    this.pairs.replaceChildren(...differing.map((pair) => row(pair, diff.requests, open)));
  }
}

function row(pair: PolicyPair, requests: number, open: Set<string | undefined>): HTMLElement {
  const key = `${pair.said}>${pair.would}`;
  const bar = h('div', { class: pair.effect === 'newly-allowed' ? 'bar' : 'bar refused' }, h('i'));
  bar.style.setProperty('--share', String(requests > 0 ? pair.count / requests : 0));
  const examples = pair.examples.map((one) =>
    h(
      'li',
      {},
      h('code', {}, one.path),
      h('span', { class: 'play-state' }, [one.country, `session ${one.session}`, ago(one.ts, Date.now())].filter(Boolean).join(', ')),
    ),
  );
  return h(
    'details',
    { class: 'pair', 'data-pair': key, 'data-testid': 'pair', 'data-effect': pair.effect, open: open.has(key) },
    h(
      'summary',
      {},
      h('span', { class: 'play-line' }, h('span', { class: 'reason' }, verdictWords(pair.would)), h('span', {}, `${count(pair.count)}, ${share(pair.count, requests)}`)),
      bar,
      h('span', { class: 'play-state' }, `where ${verdictWords(pair.said)} is said`),
    ),
    h('ul', { class: 'examples' }, ...(examples.length > 0 ? examples : [h('li', { class: 'play-state' }, 'No example was reported.')])),
  );
}
