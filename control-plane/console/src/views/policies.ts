/** The list of policies: who decides, who is tried, how edges stand. */

import { words } from '../api';
import type { App } from '../app';
import { h, KeyedList, setAttr, setText, show } from '../dom';
import { aliveEdges, onIt, triedWords, type Policy } from '../policies';

/** The page asks this often while the view is open. */
export const LOOK_EVERY_MS = 2_000;

export function policyHref(name: string): string {
  return `#/policies/${encodeURIComponent(name)}`;
}

export class PoliciesView {
  readonly element: HTMLElement;
  private readonly title = h('h1', { tabindex: -1 }, 'Policies');
  private readonly summary = h('p', { class: 'summary' });
  private readonly problem = h('p', { class: 'row-failure', role: 'alert', hidden: true });
  private readonly nothing: HTMLElement;
  private readonly list = h('ul', { class: 'policy-list', 'data-testid': 'policies' });
  private readonly rows: KeyedList<Policy>;
  private readonly timer: ReturnType<typeof setInterval>;
  private closed = false;

  constructor(private readonly app: App) {
    this.rows = new KeyedList(this.list, (policy) => policy.policy, () => new Row());
    this.nothing = h(
      'div',
      { class: 'panel nothing', hidden: true },
      h('p', {}, 'No policies yet. A policy is a rule of yours that edges ask for each request; bring the first with'),
      h('p', {}, h('code', {}, 'segue policy push NAME FILE.wasm')),
    );
    this.element = h(
      'section',
      { class: 'detail', 'data-testid': 'policies-view' },
      h('header', { class: 'policies-head' }, this.title, this.summary),
      this.problem,
      this.nothing,
      this.list,
    );
    void this.look();
    this.timer = setInterval(() => {
      if (document.visibilityState === 'visible') void this.look();
    }, LOOK_EVERY_MS);
  }

  focus(): void {
    this.title.focus({ preventScroll: true });
  }

  close(): void {
    this.closed = true;
    clearInterval(this.timer);
  }

  private async look(): Promise<void> {
    try {
      const policies = await this.app.api.policies();
      if (this.closed) return;
      const active = policies.filter((policy) => policy.active !== null).length;
      setText(this.summary, policies.length > 0 ? `${active} of ${policies.length} decide` : '');
      this.rows.render(policies);
      show(this.list, policies.length > 0);
      show(this.nothing, policies.length === 0);
      show(this.problem, false);
    } catch (error) {
      if (this.closed) return;
      setText(this.problem, words(error));
      show(this.problem, true);
    }
  }
}

class Row {
  readonly element: HTMLElement;
  private readonly link = h('a', { class: 'policy-name' });
  private readonly world = h('span', { class: 'chip' });
  private readonly active = h('dd', {});
  private readonly tried = h('dd', {});
  private readonly edges = h('dd', {});

  constructor() {
    const fact = (label: string, value: HTMLElement) => h('div', {}, h('dt', {}, label), value);
    this.element = h(
      'li',
      { class: 'policy', 'data-testid': 'policy' },
      h('div', { class: 'policy-words' }, this.link, this.world),
      h('dl', {}, fact('Decides', this.active), fact('Tried', this.tried), fact('Edges on it', this.edges)),
    );
  }

  update(policy: Policy): void {
    setText(this.link, policy.policy);
    setAttr(this.link, 'href', policyHref(policy.policy));
    setText(this.world, policy.world === 'access' ? 'access' : 'ticket scheme');
    setText(this.active, policy.active ?? 'none');
    setText(this.tried, triedWords(policy));
    const alive = aliveEdges(policy).length;
    const on = onIt(policy);
    setText(this.edges, `${on} of ${alive}`);
    this.edges.classList.toggle('short', on < alive);
    this.element.dataset['policy'] = policy.policy;
  }
}
