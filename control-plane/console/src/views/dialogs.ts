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
  /** What it does harms listeners, or cannot be undone; so it is, where nothing is said. */
  danger?: boolean;
}

export interface NumberField {
  label: string;
  value: number;
  min: number;
  max: number;
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
    return this.ask(question, h('p', {}, question.body), cancel, () => true).then((sure) => sure ?? false);
  }

  /** The same with a number to be given; `null` where it is called off. */
  confirmNumber(question: Question, field: NumberField): Promise<number | null> {
    const cancel = h('button', { type: 'button', class: 'button', value: 'cancel' }, 'Cancel');
    const input = h('input', {
      type: 'number', class: 'field', min: field.min, max: field.max, step: 'any', required: true, autofocus: true, 'data-testid': 'number',
    });
    input.value = String(field.value);
    const body = h('div', {}, h('p', {}, question.body), h('label', { class: 'number' }, field.label, input));
    return this.ask(question, body, cancel, () => (input.reportValidity() ? input.valueAsNumber : null));
  }

  /** `read` gives what is answered; `null` keeps the question open. */
  private ask<T>(question: Question, body: HTMLElement, cancel: HTMLButtonElement, read: () => T | null): Promise<T | null> {
    const kind = question.danger === false ? 'primary' : 'danger';
    const act = h('button', { type: 'button', class: `button ${kind}`, 'data-testid': 'confirm' }, question.act);
    const dialog = this.open(question.title, body, [cancel, act]);
    return new Promise((resolve) => {
      let answer: T | null = null;
      act.addEventListener('click', () => {
        answer = read();
        if (answer !== null) dialog.close();
      });
      cancel.addEventListener('click', () => dialog.close());
      dialog.addEventListener('close', () => {
        dialog.remove();
        resolve(answer);
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
