/**
 * The house's figures, read again after events and every so often: sums and the
 * listeners of the moment are the server's, so that what was there before this
 * page was opened counts as well.
 */

import type { Api } from './api';
import type { HouseStats } from './model';

/** Listeners leave without an event. */
const EVERY_MS = 15_000;
/** A burst of events asks once in this time. */
const SOON_MS = 1_000;

export class House {
  /** The last day; null until it was read. */
  day: HouseStats | null = null;
  private due: ReturnType<typeof setTimeout> | null = null;
  private stopped = false;

  constructor(
    private readonly api: Api,
    private readonly onChange: () => void,
  ) {
    setInterval(() => {
      if (document.visibilityState === 'visible') void this.read();
    }, EVERY_MS);
  }

  /** After a play or a refusal. */
  soon(): void {
    this.due ??= setTimeout(() => {
      this.due = null;
      void this.read();
    }, SOON_MS);
  }

  stop(): void {
    this.stopped = true;
  }

  async read(): Promise<void> {
    if (this.stopped) return;
    try {
      this.day = await this.api.house(24);
      this.onChange();
    } catch {
      // What is shown stays; the live connection says that the server is away.
    }
  }
}
