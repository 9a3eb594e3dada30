/** Short messages at the edge of the page, and questions in the middle of it. */

import { h, setText } from '../dom';
import { icon } from '../icons';

const TOAST_MS = 5_000;
const ERROR_TOAST_MS = 9_000;
const MAX_TOASTS = 3;

export interface Question {
  title: string;
  body: string;
  act: string;
}

export class Dialogs {
  readonly element = h('div', { class: 'toasts', role: 'status', 'aria-live': 'polite', 'data-testid': 'toasts' });

  /** What is said to a screen reader and shown elsewhere on the page. */
  readonly spoken = h('p', { class: 'spoken', role: 'status', 'aria-live': 'polite' });

  announce(text: string): void {
    setText(this.spoken, text);
  }

  toast(text: string, kind: 'note' | 'error' = 'note'): void {
    const toast = h('div', { class: `toast ${kind}` }, icon(kind === 'error' ? 'alert' : 'check'), h('p', {}, text));
    this.element.append(toast);
    while (this.element.children.length > MAX_TOASTS) this.element.firstElementChild?.remove();
    setTimeout(() => toast.remove(), kind === 'error' ? ERROR_TOAST_MS : TOAST_MS);
  }

  confirm(question: Question): Promise<boolean> {
    const cancel = h('button', { type: 'button', class: 'button', value: 'cancel', autofocus: true }, 'Cancel');
    const act = h('button', { type: 'button', class: 'button danger', 'data-testid': 'confirm' }, question.act);
    const dialog = this.open(question.title, h('p', {}, question.body), [cancel, act]);
    return new Promise((resolve) => {
      let sure = false;
      act.addEventListener('click', () => {
        sure = true;
        dialog.close();
      });
      cancel.addEventListener('click', () => dialog.close());
      dialog.addEventListener('close', () => {
        dialog.remove();
        resolve(sure);
      });
    });
  }

  showLink(title: string, url: string, note: string): Promise<void> {
    const field = h('input', { type: 'text', readonly: true, class: 'field', 'aria-label': title });
    field.value = url;
    const close = h('button', { type: 'button', class: 'button primary' }, 'Done');
    const dialog = this.open(title, h('div', { class: 'stack' }, field, h('p', {}, note)), [close]);
    field.select();
    return new Promise((resolve) => {
      close.addEventListener('click', () => dialog.close());
      dialog.addEventListener('close', () => {
        dialog.remove();
        resolve();
      });
    });
  }

  private open(title: string, body: HTMLElement, buttons: HTMLElement[]): HTMLDialogElement {
    const heading = h('h2', { id: 'dialog-title' }, title);
    const dialog = h(
      'dialog',
      { class: 'dialog', 'aria-labelledby': 'dialog-title' },
      heading,
      body,
      h('div', { class: 'dialog-acts' }, ...buttons),
    );
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) dialog.close();
    });
    document.body.append(dialog);
    dialog.showModal();
    return dialog;
  }
}
