/**
 * The live connection: one stream of server-sent events, kept open.
 *
 * After every (re)connect the page lists anew, because events of the gap are
 * gone. Events that arrive while the list is under way are held back and applied
 * after it, so that an older list never hides a newer event. Delays between
 * attempts double from half a second to fifteen, with jitter.
 */

import { ApiError, words, type Api } from './api';
import { EventParser, type ServerEvent } from './sse';

const FIRST_DELAY_MS = 500;
const LAST_DELAY_MS = 15_000;
/** The server comments at least this often; longer silence is a dead connection. */
const SILENCE_MS = 50_000;
/** Events held back during a list; past this the stream is simply reopened. */
const MAX_HELD = 2_000;

export type LiveState = { state: 'connecting' } | { state: 'open' } | { state: 'waiting'; message: string; retryAt: number };

export interface LiveOptions {
  api: Api;
  topics: string[];
  /** Reads the whole truth again; called after each connect. */
  relist: () => Promise<void>;
  onEvent: (event: ServerEvent) => void;
  onState: (state: LiveState) => void;
}

export class Live {
  private stopped = false;
  private attempt: AbortController | null = null;
  private wake: (() => void) | null = null;

  constructor(private readonly options: LiveOptions) {
    // A laptop that wakes up, or a phone that finds its network, need not wait out the delay.
    addEventListener('online', () => this.wake?.());
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.wake?.();
    });
  }

  async run(): Promise<void> {
    let delay = FIRST_DELAY_MS;
    while (!this.stopped) {
      this.options.onState({ state: 'connecting' });
      const attempt = new AbortController();
      this.attempt = attempt;
      let message = 'The live connection was closed.';
      try {
        await this.follow(attempt, () => {
          delay = FIRST_DELAY_MS;
        });
      } catch (error) {
        if (this.stopped) return;
        if (error instanceof ApiError && error.status === 401) return;
        message = words(error);
      } finally {
        attempt.abort();
      }
      if (this.stopped) return;
      const pause = delay * (0.75 + Math.random() * 0.5);
      delay = Math.min(delay * 2, LAST_DELAY_MS);
      this.options.onState({ state: 'waiting', message, retryAt: Date.now() + pause });
      await this.pause(pause);
    }
  }

  stop(): void {
    this.stopped = true;
    this.attempt?.abort();
    this.wake?.();
  }

  private async follow(attempt: AbortController, onOpen: () => void): Promise<void> {
    let silence = setTimeout(() => attempt.abort(), SILENCE_MS);
    try {
      const stream = await this.options.api.events(this.options.topics, attempt.signal);
      const reader = stream.getReader();
      let held: ServerEvent[] | null = [];
      const listed = this.options.relist().then(() => {
        const waiting = held ?? [];
        held = null;
        onOpen();
        this.options.onState({ state: 'open' });
        for (const event of waiting) this.options.onEvent(event);
      });
      let listFailed: unknown = null;
      listed.catch((error: unknown) => {
        listFailed = error;
        attempt.abort();
      });
      const parser = new EventParser();
      try {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          clearTimeout(silence);
          silence = setTimeout(() => attempt.abort(), SILENCE_MS);
          for (const event of parser.push(value)) {
            if (held === null) this.options.onEvent(event);
            else if (held.length < MAX_HELD) held.push(event);
            else throw new Error('Too many live events arrived before the library was read.');
          }
        }
      } catch (error) {
        throw listFailed ?? (attempt.signal.aborted ? new Error('The live connection went silent.') : error);
      }
      if (listFailed) throw listFailed;
    } finally {
      clearTimeout(silence);
    }
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, ms);
      this.wake = done;
      const self = this;
      function done() {
        clearTimeout(timer);
        self.wake = null;
        resolve();
      }
    });
  }
}
