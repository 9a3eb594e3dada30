/** The frame of the page: head, the two columns (tabs on a phone), dropping files anywhere. */

import type { App } from '../app';
import { h, setAttr, setText, show } from '../dom';
import { icon, mark } from '../icons';
import type { LiveState } from '../live';
import { ActivityView } from './activity';
import { LibraryView } from './library';
import { PlayerView } from './player';
import { PoliciesView } from './policies';
import { PolicyView } from './policy';
import { TrackView } from './track';
import { TrafficView } from './traffic';

type Tab = 'library' | 'activity' | 'traffic' | 'policies';

export class Shell {
  readonly element: HTMLElement;
  readonly library: LibraryView;
  readonly activity: ActivityView;
  readonly player: PlayerView;
  track: TrackView | null = null;
  traffic: TrafficView | null = null;
  /** The list of policies or one of them, where that is what the column shows. */
  private policies: PoliciesView | PolicyView | null = null;
  private readonly live = h('p', { class: 'live', role: 'status', 'data-testid': 'live' });
  private readonly column = h('div', { class: 'main-column' });
  private readonly tabs: Record<Tab, HTMLButtonElement>;
  private readonly drop = h(
    'div',
    { class: 'drop', hidden: true, 'aria-hidden': 'true', 'data-testid': 'drop' },
    h('div', {}, icon('drop', 'big'), h('p', {}, 'Drop to add to the library')),
  );
  private countdown: ReturnType<typeof setInterval> | null = null;

  constructor(
    private readonly app: App,
    fileInput: HTMLInputElement,
    onFiles: (files: File[]) => void,
  ) {
    this.library = new LibraryView(app);
    this.activity = new ActivityView(app);
    this.player = new PlayerView(app);
    const tab = (name: Tab, label: string) =>
      h('button', { type: 'button', class: `tab to-${name}`, 'data-testid': `tab-${name}`, onclick: () => this.select(name) }, label);
    this.tabs = {
      library: tab('library', 'Library'),
      activity: tab('activity', 'Activity'),
      traffic: tab('traffic', 'Traffic'),
      policies: tab('policies', 'Policies'),
    };
    this.column.append(this.library.element);
    this.element = h(
      'div',
      { class: 'shell' },
      h(
        'header',
        { class: 'top' },
        h('a', { class: 'brand', href: '#/', 'aria-label': 'Segue, to the library' }, mark(), 'Segue'),
        h('nav', { class: 'tabs', 'aria-label': 'Views' }, this.tabs.library, this.tabs.traffic, this.tabs.policies, this.tabs.activity),
        this.live,
        h(
          'button',
          { type: 'button', class: 'button primary add', 'data-testid': 'add', onclick: () => app.chooseFiles() },
          icon('plus'),
          'Add tracks',
        ),
        fileInput,
      ),
      h('main', { class: 'columns-main' }, this.column, this.activity.element),
      this.player.element,
      this.drop,
      app.dialogs.element,
      app.dialogs.spoken,
    );
    this.dropping(onFiles);
    addEventListener('hashchange', () => this.route());
    this.route();
  }

  render(): void {
    if (this.track) this.track.render();
    else if (!this.traffic && !this.policies) this.library.render();
    this.activity.render();
    this.player.render();
  }

  setLive(state: LiveState): void {
    if (this.countdown !== null) clearInterval(this.countdown);
    this.countdown = null;
    this.live.dataset['state'] = state.state;
    if (state.state === 'open') this.sayLive('Live');
    else if (state.state === 'connecting') this.sayLive('Connecting');
    else {
      const tell = () => {
        const seconds = Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000));
        this.sayLive(seconds > 0 ? `Offline, trying again in ${seconds} s` : 'Offline, trying again');
      };
      setAttr(this.live, 'title', state.message);
      tell();
      this.countdown = setInterval(tell, 1_000);
      return;
    }
    setAttr(this.live, 'title', null);
  }

  private sayLive(text: string): void {
    setText(this.live, text);
  }

  private select(name: Tab): void {
    this.mark(name);
    if (name === 'library' && location.hash !== '' && location.hash !== '#/') location.hash = '#/';
    if (name === 'traffic' || name === 'policies') {
      const place = `#/${name}`;
      if (location.hash === place) this.route();
      else location.hash = place;
    }
  }

  private route(): void {
    const [, place, id] = /^#\/(track|traffic|policies)(?:\/([^/]+))?$/.exec(location.hash) ?? [];
    this.track?.close();
    this.track = null;
    this.traffic?.close();
    this.traffic = null;
    this.policies?.close();
    this.policies = null;
    if (place === 'track' && id) {
      this.track = new TrackView(this.app, decodeURIComponent(id));
      this.mark('library');
      this.column.replaceChildren(this.track.element);
      this.track.render();
      this.track.focus();
    } else if (place === 'traffic') {
      this.traffic = new TrafficView(this.app);
      this.mark('traffic');
      this.column.replaceChildren(this.traffic.element);
      this.traffic.focus();
    } else if (place === 'policies') {
      this.policies = id ? new PolicyView(this.app, decodeURIComponent(id)) : new PoliciesView(this.app);
      this.mark('policies');
      this.column.replaceChildren(this.policies.element);
      this.policies.focus();
    } else {
      this.column.replaceChildren(this.library.element);
      this.mark('library');
      this.library.render();
    }
    scrollTo(0, 0);
  }

  /** Says which tab it is; on a phone that one alone is shown. */
  private mark(name: Tab): void {
    this.column.classList.toggle('off', name === 'activity');
    this.activity.element.classList.toggle('off', name !== 'activity');
    for (const [key, button] of Object.entries(this.tabs)) setAttr(button, 'aria-current', key === name ? 'page' : null);
  }

  private dropping(onFiles: (files: File[]) => void): void {
    let depth = 0;
    const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false;
    addEventListener('dragenter', (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      depth += 1;
      show(this.drop, true);
    });
    addEventListener('dragover', (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      if (event.dataTransfer) event.dataTransfer.dropEffect = 'copy';
    });
    addEventListener('dragleave', (event) => {
      if (!carriesFiles(event)) return;
      depth = Math.max(0, depth - 1);
      if (depth === 0) show(this.drop, false);
    });
    addEventListener('drop', (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      depth = 0;
      show(this.drop, false);
      // A folder comes as an entry that cannot be read as a file; leave it out.
      const files = [...(event.dataTransfer?.items ?? [])]
        .filter((item) => item.kind === 'file' && !item.webkitGetAsEntry?.()?.isDirectory)
        .map((item) => item.getAsFile())
        .filter((file): file is File => file !== null);
      onFiles(files);
    });
  }
}
