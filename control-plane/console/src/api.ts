/**
 * The control plane's API. Every refusal becomes an `ApiError` whose message is
 * a sentence for the person at the page; a token that is not accepted is also
 * told to `onRefused`, once, so that the page can ask for another.
 */

import type { HouseStats, Job, PartUrl, PartsUpload, Stats, Ticket, Track, Upload } from './model';
import type { HistoryLine, Policy, PolicyDiff, Swap, Swapped, Verdicts } from './policies';

/** A request that waits longer than this is given up: the page says so instead of hanging. */
const REQUEST_TIMEOUT_MS = 30_000;

export class ApiError extends Error {
  constructor(
    readonly kind: string,
    message: string,
    readonly status: number,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

/** The sentence to show for anything that was thrown. */
export function words(error: unknown): string {
  if (error instanceof Error && error.message) return error.message;
  return String(error);
}

async function refusal(response: Response): Promise<ApiError> {
  let kind = `http-${response.status}`;
  let message = `The control plane answered ${response.status}${response.statusText ? ` (${response.statusText})` : ''}.`;
  try {
    const body: unknown = await response.json();
    if (body && typeof body === 'object') {
      const { error, message: said } = body as { error?: unknown; message?: unknown };
      if (typeof error === 'string') kind = error;
      if (typeof said === 'string' && said) message = said;
    }
  } catch {
    // Not JSON: the status says what there is to say.
  }
  return new ApiError(kind, message, response.status);
}

function policyPath(name: string): string {
  return `/v1/policies/${encodeURIComponent(name)}`;
}

export class Api {
  constructor(
    private readonly token: string,
    private readonly onRefused: (error: ApiError) => void,
    private readonly base: string = '',
  ) {}

  tracks(): Promise<Track[]> {
    return this.json<{ tracks: Track[] }>('GET', '/v1/tracks').then((body) => body.tracks);
  }

  track(id: string): Promise<Track> {
    return this.json('GET', `/v1/tracks/${encodeURIComponent(id)}`);
  }

  create(
    file: { name: string; size: number; type: string },
    fingerprint: string,
  ): Promise<{ track: Track; upload: Upload | PartsUpload }> {
    return this.json('POST', '/v1/tracks', {
      filename: file.name,
      size: file.size,
      fingerprint,
      ...(file.type ? { content_type: file.type } : {}),
    });
  }

  /** The track of an upload in parts that was broken off, if there is one. */
  async brokenOff(fingerprint: string): Promise<string | undefined> {
    const path = `/v1/uploads?fingerprint=${encodeURIComponent(fingerprint)}`;
    const { uploads } = await this.json<{ uploads: { track: string }[] }>('GET', path);
    return uploads[0]?.track;
  }

  /** What is there of an upload in parts. */
  parts(id: string): Promise<PartsUpload> {
    return this.json('GET', `/v1/tracks/${encodeURIComponent(id)}/upload`);
  }

  partUrls(id: string, parts: number[]): Promise<PartUrl[]> {
    const path = `/v1/tracks/${encodeURIComponent(id)}/upload/urls`;
    return this.json<{ parts: PartUrl[] }>('POST', path, { parts }).then((body) => body.parts);
  }

  uploaded(id: string): Promise<{ track: Track; job: Job }> {
    return this.json('POST', `/v1/tracks/${encodeURIComponent(id)}/uploaded`, {});
  }

  async remove(id: string): Promise<void> {
    await this.send('DELETE', `/v1/tracks/${encodeURIComponent(id)}`);
  }

  purge(id: string): Promise<{ track: string; generation: number }> {
    return this.json('POST', `/v1/tracks/${encodeURIComponent(id)}/purge`, {});
  }

  ticket(id: string, sid?: string): Promise<Ticket> {
    return this.json('POST', `/v1/tracks/${encodeURIComponent(id)}/tickets`, sid ? { sid } : {});
  }

  stats(id: string): Promise<Stats> {
    return this.json('GET', `/v1/tracks/${encodeURIComponent(id)}/stats`);
  }

  /** The house over the hours up to now. */
  house(hours: number): Promise<HouseStats> {
    return this.json('GET', `/v1/stats?from=${Date.now() - (hours - 1) * 3_600_000}`);
  }

  jobs(): Promise<Job[]> {
    return this.json<{ jobs: Job[] }>('GET', '/v1/jobs').then((body) => body.jobs);
  }

  retry(job: string): Promise<Job> {
    return this.json('POST', `/v1/jobs/${encodeURIComponent(job)}/retry`, {});
  }

  policies(): Promise<Policy[]> {
    return this.json<{ policies: Policy[] }>('GET', '/v1/policies').then((body) => body.policies);
  }

  policy(name: string): Promise<Policy> {
    return this.json('GET', policyPath(name));
  }

  policyHistory(name: string): Promise<HistoryLine[]> {
    return this.json<{ history: HistoryLine[] }>('GET', `${policyPath(name)}/history?limit=50`).then((body) => body.history);
  }

  policyVerdicts(name: string): Promise<Verdicts> {
    return this.json('GET', `${policyPath(name)}/verdicts?step_ms=60000`);
  }

  /** `null`: no version is or was a shadow. */
  async policyDiff(name: string): Promise<PolicyDiff | null> {
    try {
      return await this.json<PolicyDiff>('GET', `${policyPath(name)}/diff`);
    } catch (error) {
      if (error instanceof ApiError && error.kind === 'no-shadow') return null;
      throw error;
    }
  }

  /** Does it and waits a moment for the edges. A rollback takes back `from` and nothing else. */
  swap(name: string, swap: Swap, waitMs: number, from: string | null): Promise<Swapped> {
    const path = policyPath(name);
    const wait = `?wait_ms=${waitMs}`;
    switch (swap.act) {
      case 'end-trial':
        return this.json('DELETE', `${path}/candidate${wait}`);
      case 'disable':
        return this.json('DELETE', `${path}/active${wait}`);
      case 'rollback':
        return this.json('POST', `${path}/rollback${wait}`, { from });
      case 'canary':
        return this.json('POST', `${path}/canary${wait}`, { version: swap.version, percent: swap.percent });
      default:
        return this.json('POST', `${path}/${swap.act}${wait}`, { version: swap.version });
    }
  }

  /** The open stream of server-sent events; the caller reads and closes it. */
  async events(topics: string[], signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const response = await this.request('GET', `/v1/events?topics=${topics.join(',')}`, undefined, signal, 'text/event-stream');
    if (!response.body) throw new ApiError('no-stream', 'This browser cannot read live events.', 0);
    return response.body;
  }

  private async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await this.send(method, path, body);
    try {
      return (await response.json()) as T;
    } catch {
      throw new ApiError('not-json', `The control plane's answer to ${method} ${path} was not JSON.`, response.status);
    }
  }

  private send(method: string, path: string, body?: unknown): Promise<Response> {
    return this.request(method, path, body, AbortSignal.timeout(REQUEST_TIMEOUT_MS), 'application/json');
  }

  private async request(
    method: string,
    path: string,
    body: unknown,
    signal: AbortSignal,
    accept: string,
  ): Promise<Response> {
    const headers: Record<string, string> = { authorization: `Bearer ${this.token}`, accept };
    if (body !== undefined) headers['content-type'] = 'application/json';
    let response: Response;
    try {
      response = await fetch(this.base + path, {
        method,
        headers,
        signal,
        cache: 'no-store',
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (error) {
      if (error instanceof DOMException && error.name === 'TimeoutError') {
        throw new ApiError('timeout', 'The control plane did not answer in time. Try again.', 0);
      }
      if (error instanceof DOMException && error.name === 'AbortError') throw error;
      throw new ApiError('unreachable', 'The control plane cannot be reached. Is Segue still running?', 0);
    }
    if (response.ok) return response;
    const error = await refusal(response);
    if (response.status === 401) this.onRefused(error);
    throw error;
  }
}
