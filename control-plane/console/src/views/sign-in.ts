/** What stands here without a token, or with one that is not accepted. */

import { h } from '../dom';
import { mark } from '../icons';

export function signIn(refused: string | null, onToken: (token: string) => void): HTMLElement {
  const field = h('input', {
    type: 'password',
    id: 'token',
    class: 'field',
    autocomplete: 'off',
    spellcheck: 'false',
    required: true,
    'data-testid': 'token-field',
  });
  const form = h(
    'form',
    { class: 'stack' },
    h('label', { for: 'token' }, 'API token'),
    field,
    h('button', { type: 'submit', class: 'button primary' }, 'Open the console'),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const token = field.value.trim();
    if (token) onToken(token);
  });
  return h(
    'main',
    { class: 'sign-in', 'data-testid': 'sign-in' },
    h('p', { class: 'brand' }, mark(), 'Segue'),
    h('h1', {}, refused ? 'This token was not accepted' : 'This page needs a token'),
    h(
      'p',
      { role: 'status', 'data-testid': 'sign-in-message' },
      refused ? `The control plane said: ${refused} ` : '',
      'Open the link that ',
      h('code', {}, 'segue demo'),
      ' prints when it starts: it carries the token. Or paste the token here.',
    ),
    form,
  );
}
