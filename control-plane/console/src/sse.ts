/**
 * Server-sent events, parsed from a byte stream (HTML Standard, section 9.2.6).
 *
 * `EventSource` cannot send an Authorization header, and a token in the query
 * would end up in logs; hence fetch and this parser. Chunks may be cut anywhere,
 * also inside a character or between CR and LF.
 */

export interface ServerEvent {
  event: string;
  data: string;
  id: string;
}

/** A line longer than this is no event of ours; holding on to it would let a bad server fill memory. */
const MAX_PENDING = 4 * 1024 * 1024;

export class EventParser {
  private readonly decoder = new TextDecoder();
  private pending = '';
  private skipLineFeed = false;
  private event = '';
  private data: string[] = [];
  private id = '';
  /** The server's wish for the reconnect delay, in milliseconds. */
  retry: number | null = null;

  /** Takes the next bytes; returns the events that they complete. */
  push(chunk: Uint8Array): ServerEvent[] {
    let text = this.decoder.decode(chunk, { stream: true });
    if (this.skipLineFeed && text.length > 0) {
      if (text.startsWith('\n')) text = text.slice(1);
      this.skipLineFeed = false;
    }
    this.pending += text;
    const events: ServerEvent[] = [];
    let start = 0;
    for (;;) {
      const end = nextBreak(this.pending, start);
      if (end < 0) break;
      const line = this.pending.slice(start, end);
      start = end + 1;
      if (this.pending[end] === '\r') {
        if (start < this.pending.length) {
          if (this.pending[start] === '\n') start += 1;
        } else {
          this.skipLineFeed = true;
        }
      }
      const event = this.line(line);
      if (event) events.push(event);
    }
    this.pending = this.pending.slice(start);
    if (this.pending.length > MAX_PENDING) throw new Error('A live event was too large.');
    return events;
  }

  private line(line: string): ServerEvent | null {
    if (line === '') return this.dispatch();
    if (line.startsWith(':')) return null;
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    switch (field) {
      case 'event':
        this.event = value;
        break;
      case 'data':
        this.data.push(value);
        break;
      case 'id':
        if (!value.includes('\0')) this.id = value;
        break;
      case 'retry':
        if (/^\d+$/.test(value)) this.retry = Number(value);
        break;
    }
    return null;
  }

  private dispatch(): ServerEvent | null {
    const { event, data, id } = this;
    this.event = '';
    this.data = [];
    if (data.length === 0) return null;
    return { event: event || 'message', data: data.join('\n'), id };
  }
}

function nextBreak(text: string, from: number): number {
  for (let at = from; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 10 || code === 13) return at;
  }
  return -1;
}
