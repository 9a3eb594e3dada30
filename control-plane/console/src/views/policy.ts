/** One policy in full: what it says, what its shadow would say, its versions with the buttons that swap them, its edges, its history. */

import { words } from '../api';
import type { App } from '../app';
import { h, KeyedList, setAttr, setText, show } from '../dom';
import { ago, bytes, count } from '../format';
import { icon } from '../icons';
import {
  aliveEdges, historyWords, onIt, outcome, question, share, steps, triedWords,
  type HistoryLine, type Policy, type PolicyEdge, type PolicyVersion, type Swap,
} from '../policies';
import { Difference } from './difference';
import { LOOK_EVERY_MS } from './policies';
import { VerdictChart } from './verdicts';

/** How long a swap waits for edges before it says who is missing. */
const WAIT_MS = 5_000;
const CANARY_PERCENT = 10;

const STATES: Record<PolicyVersion['state'], string> = {
  checked: 'checked',
  pushed: 'pushed',
  shadow: 'shadow',
  canary: 'canary',
  active: 'active',
};

export class PolicyView {
  readonly element: HTMLElement;
  private readonly title = h('h1', { tabindex: -1, 'data-testid': 'policy-title' });
  private readonly byline = h('p', { class: 'byline' });
  private readonly problem = h('p', { class: 'row-failure', role: 'alert', hidden: true });
  private readonly back: HTMLButtonElement;
  private readonly end: HTMLButtonElement;
  private readonly off: HTMLButtonElement;
  private readonly figures: Record<'active' | 'tried' | 'edges' | 'asked' | 'denied', HTMLElement>;
  private readonly chart = new VerdictChart();
  private readonly difference = new Difference();
  private readonly versions = h('ul', { class: 'rows' });
  private readonly edges = h('ul', { class: 'rows' });
  private readonly history = h('ol', { class: 'rows', 'data-testid': 'history' });
  private readonly versionRows: KeyedList<PolicyVersion>;
  private readonly edgeRows: KeyedList<PolicyEdge>;
  private readonly historyRows: KeyedList<HistoryLine>;
  private readonly body: HTMLElement;
  private readonly timer: ReturnType<typeof setInterval>;
  private policy: Policy | null = null;
  private closed = false;
  private busy = false;

  constructor(
    private readonly app: App,
    readonly name: string,
  ) {
    const swap = (what: Swap) => () => void this.swap(what);
    this.back = h(
      'button',
      { type: 'button', class: 'button', 'data-testid': 'rollback', onclick: swap({ act: 'rollback' }) },
      icon('retry'),
      'Roll back',
    );
    this.end = h('button', { type: 'button', class: 'button', 'data-testid': 'end-trial', onclick: swap({ act: 'end-trial' }) }, 'End trial');
    this.off = h('button', { type: 'button', class: 'button quiet', 'data-testid': 'disable', onclick: swap({ act: 'disable' }) }, 'Turn off');
    const figure = (name: string) => h('dd', { class: 'figure', 'data-testid': `policy-${name}` }, '–');
    this.figures = { active: figure('active'), tried: figure('tried'), edges: figure('edges'), asked: figure('asked'), denied: figure('denied') };
    const tile = (label: string, value: HTMLElement) => h('div', { class: 'tile' }, h('dt', {}, label), value);
    this.versionRows = new KeyedList(this.versions, (one) => one.version, () => new VersionRow(this));
    this.edgeRows = new KeyedList(this.edges, (one) => one.edge, () => new EdgeRow());
    this.historyRows = new KeyedList(this.history, (one) => String(one.seq), () => new HistoryRow());
    const { active, tried, edges, asked, denied } = this.figures;
    this.body = h(
      'div',
      { class: 'measured' },
      h(
        'dl',
        { class: 'tiles policy-tiles' },
        tile('Decides', active),
        tile('Tried', tried),
        tile('Edges on it', edges),
        tile('Asked, last hour', asked),
        tile('Denied', denied),
      ),
      h('section', { class: 'panel' }, h('h2', {}, 'Verdicts by minute'), this.chart.element),
      this.difference.element,
      h('section', { class: 'panel' }, h('h2', {}, 'Versions'), this.versions),
      h(
        'div',
        { class: 'charts' },
        h('section', { class: 'panel' }, h('h2', {}, 'Edges'), this.edges),
        h('section', { class: 'panel' }, h('h2', {}, 'History'), this.history),
      ),
    );
    this.element = h(
      'article',
      { class: 'detail', 'data-testid': 'policy-view' },
      h('a', { class: 'back', href: '#/policies' }, icon('back'), 'Policies'),
      h(
        'header',
        { class: 'policy-head' },
        h('div', { class: 'detail-words' }, this.title, this.byline, this.problem),
        h('div', { class: 'buttons' }, this.back, this.end, this.off),
      ),
      this.body,
    );
    setText(this.title, name);
    show(this.body, false);
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
    this.chart.destroy();
  }

  /** Asks, does it, and says what it came to. */
  async swap(what: Swap): Promise<void> {
    const { policy } = this;
    if (!policy || this.busy) return;
    const asked = { ...question(policy, what), danger: what.act === 'rollback' || what.act === 'disable' };
    let swap = what;
    if (what.act === 'canary') {
      const percent = await this.app.dialogs.confirmNumber(asked, { label: 'Percent of sessions', value: what.percent, min: 0.01, max: 100 });
      if (percent === null) return;
      swap = { ...what, percent };
    } else if (!(await this.app.dialogs.confirm(asked))) return;
    this.busy = true;
    try {
      const swapped = await this.app.api.swap(this.name, swap, WAIT_MS, policy.rollback?.from ?? null);
      this.app.dialogs.toast(outcome(swapped), swapped.edges.not_on.length > 0 ? 'error' : 'note');
    } catch (error) {
      this.app.dialogs.toast(`Not done: ${words(error)}`, 'error');
    } finally {
      this.busy = false;
      void this.look();
    }
  }

  private async look(): Promise<void> {
    const { api } = this.app;
    try {
      const [policy, history, verdicts] = await Promise.all([
        api.policy(this.name),
        api.policyHistory(this.name),
        api.policyVerdicts(this.name),
      ]);
      // There is a difference to show once a version was a shadow.
      const tried = policy.candidate?.trial === 'shadow' || history.some((line) => line.act === 'shadow');
      const diff = tried ? await api.policyDiff(this.name) : null;
      if (this.closed) return;
      this.policy = policy;
      this.render(policy);
      this.historyRows.render(history);
      const minutes = steps(verdicts, Date.now());
      this.chart.update(minutes);
      const denied = minutes.reduce((sum, step) => sum + step.denied, 0);
      const asked = minutes.reduce((sum, step) => sum + step.allowed + step.denied + step.failed, 0);
      setText(this.figures.asked, count(asked));
      setText(this.figures.denied, asked > 0 ? share(denied, asked) : '–');
      this.difference.update(diff);
      show(this.problem, false);
    } catch (error) {
      if (this.closed) return;
      setText(this.problem, words(error));
      show(this.problem, true);
    }
  }

  private render(policy: Policy): void {
    show(this.body, true);
    const fails = policy.on_failure === 'closed' ? 'refuses requests that it fails at' : 'lets requests through that it fails at';
    const world = policy.world === 'access' ? 'Access policy' : 'Ticket scheme';
    setText(this.byline, `${world}, asked at place ${policy.order}, ${fails}`);
    show(this.back, policy.rollback !== null);
    show(this.end, policy.candidate !== null);
    show(this.off, policy.active !== null);
    setText(this.figures.active, policy.active ?? 'none');
    setText(this.figures.tried, triedWords(policy));
    const alive = aliveEdges(policy).length;
    setText(this.figures.edges, `${onIt(policy)} of ${alive}`);
    this.versionRows.render(policy.versions);
    this.edgeRows.render(policy.edges);
  }

  /** What the buttons of a version need to know. */
  get standing(): Policy | null {
    return this.policy;
  }
}

class VersionRow {
  readonly element: HTMLElement;
  private readonly name = h('span', { class: 'version-name' });
  private readonly state = h('span', { class: 'chip' });
  private readonly about = h('span', { class: 'play-state' });
  private readonly shadow: HTMLButtonElement;
  private readonly canary: HTMLButtonElement;
  private readonly active: HTMLButtonElement;
  private version = '';

  constructor(view: PolicyView) {
    const button = (label: string, testid: string, swap: () => Swap) =>
      h('button', { type: 'button', class: 'button small', 'data-testid': testid, onclick: () => void view.swap(swap()) }, label);
    this.shadow = button('Shadow', 'shadow', () => ({ act: 'shadow', version: this.version }));
    this.canary = button('Canary', 'canary', () => ({ act: 'canary', version: this.version, percent: CANARY_PERCENT }));
    this.active = button('Activate', 'activate', () => ({ act: 'active', version: this.version }));
    this.view = view;
    this.element = h(
      'li',
      { class: 'version', 'data-testid': 'version' },
      h('div', { class: 'version-words' }, h('div', { class: 'policy-words' }, this.name, this.state), this.about),
      h('div', { class: 'buttons' }, this.shadow, this.canary, this.active),
    );
  }

  private readonly view: PolicyView;

  update(version: PolicyVersion): void {
    const policy = this.view.standing;
    const alive = policy ? aliveEdges(policy).length : 0;
    this.version = version.version;
    this.element.dataset['version'] = version.version;
    this.element.dataset['state'] = version.state;
    setText(this.name, version.version);
    setText(this.state, STATES[version.state]);
    setAttr(this.state, 'data-state', version.state);
    const about = [
      version.state === 'checked' ? null : `ready on ${version.ready} of ${alive}`,
      bytes(version.bytes),
      version.vectors > 0 ? `${version.vectors} vectors passed` : 'no vectors',
      version.signer ? `signed by ${version.signer}` : null,
      `${version.uploaded_by}, ${ago(version.created_ms, Date.now())}`,
      version.note,
    ];
    setText(this.about, about.filter(Boolean).join(' · '));
    setAttr(this.about, 'title', `SHA-256 ${version.digest}`);
    const trial = policy?.world === 'access' && version.state !== 'active';
    show(this.shadow, trial && version.state !== 'shadow');
    show(this.canary, trial);
    show(this.active, version.state !== 'active');
  }
}

class EdgeRow {
  readonly element: HTMLElement;
  private readonly name = h('span', { class: 'reason' });
  private readonly deciding = h('span', {});
  private readonly note = h('span', { class: 'play-state' });

  constructor() {
    this.element = h('li', { class: 'edge', 'data-testid': 'edge' }, h('div', { class: 'play-line' }, this.name, this.deciding), this.note);
  }

  update(edge: PolicyEdge): void {
    setText(this.name, edge.edge);
    setText(this.deciding, edge.alive ? (edge.deciding ? `on ${edge.deciding}` : 'on none') : 'silent');
    const notes = [
      edge.is_kept ? 'keeps the version that it last had' : null,
      ...edge.problems.map((one) => `${one.version}: ${one.problem}`),
    ].filter(Boolean);
    setText(this.note, notes.length > 0 ? notes.join('; ') : `ready: ${edge.ready.join(', ') || 'none'}`);
    this.element.classList.toggle('ended', !edge.alive);
    this.note.classList.toggle('short', edge.problems.length > 0 || edge.is_kept);
  }
}

class HistoryRow {
  readonly element: HTMLElement;
  private readonly what = h('span', {});
  private readonly who = h('span', { class: 'play-state' });

  constructor() {
    this.element = h('li', { class: 'edge' }, this.what, this.who);
  }

  update(line: HistoryLine): void {
    const said = historyWords(line);
    setText(this.what, said.charAt(0).toUpperCase() + said.slice(1));
    setText(this.who, [line.by, ago(line.at_ms, Date.now()), line.note].filter(Boolean).join(' · '));
  }
}
