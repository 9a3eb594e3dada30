/**
 * Who is looking: the API token of this tab, and the listener of this device.
 *
 * The token arrives in the URL's fragment, which no server sees, moves into
 * sessionStorage and is taken out of the address bar, so that a copied address
 * or a screenshot gives nothing away. The listener id outlives the tab: plays
 * are counted per listener, and a reload is not a new one.
 */

const TOKEN_KEY = 'segue.token';
const SID_KEY = 'segue.sid';

/** Storage may be refused altogether (private windows, policies): then memory has to do. */
class Keep {
  private readonly memory = new Map<string, string>();
  constructor(private readonly storage: () => Storage) {}

  read(key: string): string | null {
    try {
      return this.storage().getItem(key);
    } catch {
      return this.memory.get(key) ?? null;
    }
  }

  write(key: string, value: string): void {
    this.memory.set(key, value);
    try {
      this.storage().setItem(key, value);
    } catch {
      // Kept in memory above: the page works until it is reloaded.
    }
  }

  forget(key: string): void {
    this.memory.delete(key);
    try {
      this.storage().removeItem(key);
    } catch {
      // Nothing was stored.
    }
  }
}

const perTab = new Keep(() => sessionStorage);
const perDevice = new Keep(() => localStorage);

/** Takes `#token=…` out of the address and returns the tab's token, new or kept. */
export function takeToken(): string | null {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get('token');
  if (given) {
    perTab.write(TOKEN_KEY, given.trim());
    fragment.delete('token');
    const rest = fragment.toString();
    history.replaceState(null, '', location.pathname + location.search + (rest ? `#${rest}` : ''));
  }
  return perTab.read(TOKEN_KEY);
}

export function setToken(token: string): void {
  perTab.write(TOKEN_KEY, token.trim());
}

export function forgetToken(): void {
  perTab.forget(TOKEN_KEY);
}

/** This device's listener id: 128 random bits, made once. */
export function listenerId(): string {
  const kept = perDevice.read(SID_KEY);
  if (kept && /^[0-9a-f]{32}$/.test(kept)) return kept;
  // getRandomValues, not randomUUID: the latter is absent on plain-http pages.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const sid = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  perDevice.write(SID_KEY, sid);
  return sid;
}
