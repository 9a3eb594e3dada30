/**
 * Playback: one audio element, hls.js where Media Source exists, the browser's
 * own HLS where it does not.
 *
 * Invariants: what is fetched follows what is heard (12 to 18 s ahead, no
 * bandwidth probe), because the edge counts delivered media; a ticket that ends
 * or is refused is replaced at the position where the listener is; every failure
 * ends as a sentence in `state.message`, and pressing play tries again from there.
 */

import type Hls from 'hls.js';
import type { ErrorData, HlsConfig, LoadPolicy, LoaderResponse, RetryConfig } from 'hls.js';
import { words, type Api } from '../api';
import type { Track } from '../model';
import { TicketLease } from './lease';

/** How far ahead of the listener segments are fetched, in seconds. */
const AHEAD_S = 12;
const AHEAD_AT_MOST_S = 18;
/** Heard media kept for seeking back without another request, in seconds. */
const BEHIND_S = 90;
/** Attempts for a request that the network or a 5xx spoiled: an edge that restarts is back by then. */
const NETWORK_RETRIES = 8;
/** Fresh tickets for one request; a third refusal is a decision, not an accident. */
const TICKET_RETRIES = 2;

export type PlayerStatus = 'idle' | 'loading' | 'playing' | 'paused' | 'ended' | 'failed';

export interface Quality {
  index: number;
  name: string;
  bandwidth: number;
}

export interface PlayerState {
  track: Track | null;
  status: PlayerStatus;
  /** True while the element waits for media though it should play. */
  buffering: boolean;
  message: string | null;
  qualities: Quality[];
  /** The quality being heard; null until known, or with native HLS. */
  heard: Quality | null;
  /** The quality asked for; null is automatic. */
  chosen: string | null;
}

let hlsModule: Promise<typeof import('hls.js')> | null = null;

/** Fetches hls.js ahead of the first play. */
export function warmUp(): Promise<typeof import('hls.js')> {
  hlsModule ??= import('hls.js').catch((error: unknown) => {
    hlsModule = null;
    throw error;
  });
  return hlsModule;
}

export class Player {
  readonly audio: HTMLAudioElement;
  state: PlayerState = {
    track: null,
    status: 'idle',
    buffering: false,
    message: null,
    qualities: [],
    heard: null,
    chosen: null,
  };
  private hls: Hls | null = null;
  private lease: TicketLease | null = null;
  /** Raised by every load: answers that come for an older one are dropped. */
  private generation = 0;
  private recoveries = 0;
  private readonly watchers = new Set<() => void>();

  constructor(
    private readonly api: Api,
    private readonly sid: string,
  ) {
    this.audio = document.createElement('audio');
    this.audio.preload = 'auto';
    this.audio.dataset['testid'] = 'audio';
    this.listen();
  }

  watch(watcher: () => void): void {
    this.watchers.add(watcher);
  }

  /** The track's length in seconds: the element's once it knows, the library's until then. */
  get duration(): number {
    const { duration } = this.audio;
    if (Number.isFinite(duration) && duration > 0) return duration;
    return (this.state.track?.duration_ms ?? 0) / 1000;
  }

  async play(track: Track): Promise<void> {
    if (this.state.track?.track === track.track && this.state.status !== 'failed') {
      await this.resume();
      return;
    }
    const at = this.state.track?.track === track.track ? this.audio.currentTime : 0;
    await this.load(track, at);
  }

  async toggle(): Promise<void> {
    const { track, status } = this.state;
    if (!track) return;
    if (status === 'failed') await this.load(track, this.audio.currentTime);
    else if (this.audio.paused) await this.resume();
    else this.audio.pause();
  }

  seek(seconds: number): void {
    if (!this.state.track) return;
    const end = this.duration;
    this.audio.currentTime = Math.max(0, end > 0 ? Math.min(seconds, end - 0.05) : seconds);
  }

  choose(name: string | null): void {
    const quality = this.state.qualities.find((one) => one.name === name);
    if (this.hls) this.hls.nextLevel = quality ? quality.index : -1;
    this.set({ chosen: quality ? quality.name : null });
  }

  setVolume(volume: number): void {
    this.audio.volume = Math.max(0, Math.min(1, volume));
    if (volume > 0) this.audio.muted = false;
  }

  toggleMuted(): void {
    this.audio.muted = !this.audio.muted;
  }

  unload(): void {
    this.generation += 1;
    this.release();
    this.audio.removeAttribute('src');
    this.audio.load();
    this.lease = null;
    this.set({ track: null, status: 'idle', buffering: false, message: null, qualities: [], heard: null });
  }

  /** The library learned something new about the track that plays. */
  refresh(track: Track): void {
    if (this.state.track?.track === track.track) this.set({ track });
  }

  private async load(track: Track, at: number): Promise<void> {
    const generation = ++this.generation;
    this.release();
    this.audio.pause();
    this.recoveries = 0;
    this.lease = new TicketLease(() => this.api.ticket(track.track, this.sid));
    this.set({ track, status: 'loading', buffering: true, message: null, qualities: [], heard: null });
    try {
      const [{ default: HlsClass }, ticket] = await Promise.all([warmUp(), this.lease.current()]);
      if (generation !== this.generation) return;
      if (HlsClass.isSupported()) this.attach(HlsClass, ticket.url, at);
      else if (this.audio.canPlayType('application/vnd.apple.mpegurl')) this.attachNative(ticket.url, at);
      else throw new Error('This browser can play neither Media Source nor HLS.');
      await this.resume();
    } catch (error) {
      if (generation === this.generation) this.fail(words(error));
    }
  }

  private async resume(): Promise<void> {
    const generation = this.generation;
    try {
      await this.audio.play();
    } catch (error) {
      if (generation !== this.generation) return;
      const name = error instanceof DOMException ? error.name : '';
      if (name === 'AbortError') return;
      if (name === 'NotAllowedError') {
        this.set({ status: 'paused', buffering: false, message: 'The browser wants a press of the play button first.' });
      } else if (this.state.status !== 'failed') {
        this.fail(words(error));
      }
    }
  }

  private attach(HlsClass: typeof Hls, url: string, at: number): void {
    const hls = new HlsClass(this.hlsConfig(at));
    this.hls = hls;
    hls.on(HlsClass.Events.MANIFEST_PARSED, () => {
      const qualities = hls.levels.map((level, index) => ({
        index,
        name: renditionName(level.url[0] ?? '', level.bitrate),
        bandwidth: level.bitrate,
      }));
      const chosen = qualities.find((one) => one.name === this.state.chosen);
      if (chosen) hls.startLevel = hls.nextLevel = chosen.index;
      this.set({ qualities, chosen: chosen?.name ?? null });
    });
    hls.on(HlsClass.Events.FRAG_CHANGED, (_, data) => {
      this.set({ heard: this.state.qualities[data.frag.level] ?? null });
    });
    hls.on(HlsClass.Events.ERROR, (_, data) => this.onHlsError(HlsClass, data));
    hls.attachMedia(this.audio);
    hls.loadSource(url);
  }

  private hlsConfig(at: number): Partial<HlsConfig> {
    const policy = (maxLoadTimeMs: number): LoadPolicy => ({
      default: {
        maxTimeToFirstByteMs: 15_000,
        maxLoadTimeMs,
        timeoutRetry: { maxNumRetry: 4, retryDelayMs: 250, maxRetryDelayMs: 2_000 },
        errorRetry: {
          maxNumRetry: NETWORK_RETRIES,
          retryDelayMs: 400,
          maxRetryDelayMs: 6_000,
          backoff: 'exponential',
          shouldRetry: this.shouldRetry,
        },
      },
    });
    return {
      // Also of a playlist that still grows, where a player would begin at its end.
      startPosition: at,
      maxBufferLength: AHEAD_S,
      maxMaxBufferLength: AHEAD_AT_MOST_S,
      // Length in seconds decides, not size: audio is small.
      maxBufferSize: 0,
      backBufferLength: BEHIND_S,
      testBandwidth: false,
      enableWorker: false,
      manifestLoadPolicy: policy(20_000),
      playlistLoadPolicy: policy(20_000),
      fragLoadPolicy: policy(60_000),
      xhrSetup: async (xhr, url) => {
        const lease = this.lease;
        xhr.open('GET', lease ? await lease.rewrite(url) : url, true);
      },
    };
  }

  private readonly shouldRetry = (
    retry: RetryConfig | null | undefined,
    count: number,
    isTimeout: boolean,
    response: LoaderResponse | undefined,
    byDefault: boolean,
  ): boolean => {
    const status = response?.code ?? 0;
    if (status === 401 || status === 403) {
      if (response?.url) this.lease?.refused(response.url);
      return count < TICKET_RETRIES;
    }
    if (status === 404 || status === 410) return false;
    if (isTimeout) return byDefault;
    // 0 is a connection refused or reset: what a restarting edge looks like.
    return (status === 0 || status === 429 || status >= 500) && count < (retry?.maxNumRetry ?? 0);
  };

  private onHlsError(HlsClass: typeof Hls, data: ErrorData): void {
    if (!data.fatal) return;
    if (data.type === HlsClass.ErrorTypes.MEDIA_ERROR && this.hls && this.recoveries < 1) {
      this.recoveries += 1;
      this.hls.recoverMediaError();
      return;
    }
    this.fail(explain(data));
  }

  private attachNative(url: string, at: number): void {
    this.audio.src = url;
    if (at > 0) {
      this.audio.addEventListener('loadedmetadata', () => (this.audio.currentTime = at), { once: true });
    }
  }

  /** Native HLS says only that it broke: assume the ticket, and go on where it stopped. */
  private async recoverNative(): Promise<void> {
    const { track } = this.state;
    if (!track || !this.lease || this.recoveries >= TICKET_RETRIES) {
      this.fail('The browser could not play this track.');
      return;
    }
    this.recoveries += 1;
    const generation = this.generation;
    const at = this.audio.currentTime;
    this.lease = new TicketLease(() => this.api.ticket(track.track, this.sid));
    try {
      const ticket = await this.lease.current();
      if (generation !== this.generation) return;
      this.attachNative(ticket.url, at);
      await this.resume();
    } catch (error) {
      if (generation === this.generation) this.fail(words(error));
    }
  }

  private release(): void {
    this.hls?.destroy();
    this.hls = null;
  }

  private fail(message: string): void {
    this.release();
    this.set({ status: 'failed', buffering: false, message });
  }

  private listen(): void {
    const { audio } = this;
    const on = (name: keyof HTMLMediaElementEventMap, act: () => void) =>
      audio.addEventListener(name, () => {
        if (this.state.track) act();
      });
    on('play', () => this.set({ status: 'playing', message: null }));
    on('playing', () => {
      this.recoveries = 0;
      this.set({ status: 'playing', buffering: false, message: null });
    });
    on('waiting', () => this.set({ buffering: true }));
    on('canplay', () => this.set({ buffering: false }));
    on('pause', () => {
      if (this.state.status === 'playing' && !audio.ended) this.set({ status: 'paused', buffering: false });
    });
    on('ended', () => this.set({ status: 'ended', buffering: false }));
    on('error', () => {
      if (!this.hls && this.state.status !== 'failed' && audio.src) void this.recoverNative();
    });
  }

  private set(change: Partial<PlayerState>): void {
    this.state = { ...this.state, ...change };
    for (const watcher of this.watchers) watcher();
  }
}

/** `…/<version>/a128/index.m3u8` → `a128`. */
function renditionName(url: string, bitrate: number): string {
  const path = url.split('?')[0]?.split('/') ?? [];
  return path.at(-2) || `${Math.round(bitrate / 1000)}k`;
}

/** The edge's own words where it gave some, else what we saw. */
function explain(data: ErrorData): string {
  const said = refusalIn(data.networkDetails);
  if (said) return said;
  const status = data.response?.code ?? 0;
  if (status >= 400) return `The edge answered ${status} for a part of this track.`;
  if (data.type === 'networkError') return 'The edge cannot be reached. Press play to try again.';
  return `This track could not be played (${data.details}).`;
}

function refusalIn(details: unknown): string | null {
  if (!(details instanceof XMLHttpRequest) || details.status < 400) return null;
  try {
    const body: unknown = details.response;
    const text = body instanceof ArrayBuffer ? new TextDecoder().decode(body) : String(body ?? '');
    const { message } = JSON.parse(text) as { message?: unknown };
    return typeof message === 'string' && message ? message : null;
  } catch {
    return null;
  }
}
