/**
 * Building the page. Text from tracks only ever becomes a text node or an
 * attribute: there is no way through here from data to markup.
 */

type Child = Node | string | number | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: never) => void)>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') {
      element.addEventListener(name.replace(/^on/, ''), value as unknown as EventListener);
    } else {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  append(element, children);
  return element;
}

function append(parent: Node, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Sets text only when it differs: live regions and selections stay undisturbed. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element: HTMLElement, visible: boolean): void {
  if (element.hidden === visible) element.hidden = !visible;
}

export function setAttr(element: Element, name: string, value: string | null): void {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

interface Keyed<T> {
  element: HTMLElement;
  update(item: T): void;
  destroy?(): void;
}

/** A list that keeps the element of an item that stays, so that focus and transitions survive updates. */
export class KeyedList<T> {
  private readonly rows = new Map<string, Keyed<T>>();

  constructor(
    private readonly parent: HTMLElement,
    private readonly key: (item: T) => string,
    private readonly make: (item: T) => Keyed<T>,
  ) {}

  render(items: T[]): void {
    const wanted = new Set(items.map(this.key));
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      row.destroy?.();
      row.element.remove();
      this.rows.delete(key);
    }
    let before: ChildNode | null = this.parent.firstChild;
    for (const item of items) {
      const key = this.key(item);
      let row = this.rows.get(key);
      if (!row) {
        row = this.make(item);
        this.rows.set(key, row);
      }
      row.update(item);
      if (row.element === before) before = before.nextSibling;
      else this.parent.insertBefore(row.element, before);
    }
  }
}

/** Runs `work` once in the next frame, however often it is asked for. */
export function eachFrame(work: () => void): () => void {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    // A hidden tab gets no frames; a timer keeps its title and counts true.
    const run = () => {
      asked = false;
      work();
    };
    if (document.visibilityState === 'visible') requestAnimationFrame(run);
    else setTimeout(run, 250);
  };
}
