/**
 * The ticket that a player holds, renewed before it ends.
 *
 * The ticket is a segment of the path, and every URL inside a playlist is
 * relative, so a running player asks with the ticket that it started with.
 * `rewrite` puts the present ticket into such a URL at the moment of the request:
 * renewal needs no reload and is not heard.
 */

import type { Ticket } from '../model';

/** Renew this long before the end, or a tenth of a short life. */
const MARGIN_MS = 45_000;
/** What a ticket is taken for whose end has passed by this computer's clock. */
const SKEWED_LIFE_MS = 60_000;

export class TicketLease {
  private held: { ticket: Ticket; renewAt: number } | null = null;
  private asking: Promise<Ticket> | null = null;

  constructor(
    private readonly issue: () => Promise<Ticket>,
    private readonly now: () => number = Date.now,
  ) {}

  /** A ticket that is good for a while; many callers share one request. */
  current(): Promise<Ticket> {
    if (this.held && this.now() < this.held.renewAt) return Promise.resolve(this.held.ticket);
    this.asking ??= this.issue()
      .then((ticket) => {
        const left = ticket.expires * 1000 - this.now();
        // A clock that is wrong must not turn every request into a renewal; the
        // edge's own 401 ends such a lease through `refused`.
        const life = left > 0 ? left : SKEWED_LIFE_MS;
        this.held = { ticket, renewAt: this.now() + life - Math.min(MARGIN_MS, life / 10) };
        return ticket;
      })
      .finally(() => {
        this.asking = null;
      });
    return this.asking;
  }

  /** The edge refused a request to `url`: its ticket is worth nothing, whatever its end says. */
  refused(url: string): void {
    if (this.held && url.includes(`/p/${this.held.ticket.ticket}/`)) this.held = null;
  }

  /** `url` with the present ticket, if it carries one in its path. */
  async rewrite(url: string): Promise<string> {
    const { ticket } = await this.current();
    return withTicket(url, ticket);
  }
}

export function withTicket(url: string, ticket: string): string {
  return url.replace(/^([a-z]+:\/\/[^/]+(?:\/[^/]+)*?)?\/p\/[^/]+\/hls\//i, (_, base: string | undefined) => `${base ?? ''}/p/${ticket}/hls/`);
}
