import { describe, expect, it } from 'vitest';
import { EventParser, type ServerEvent } from './sse';

const encode = (text: string) => new TextEncoder().encode(text);

function all(bytes: Uint8Array, size: number): ServerEvent[] {
  const parser = new EventParser();
  const events: ServerEvent[] = [];
  for (let at = 0; at < bytes.length; at += size) events.push(...parser.push(bytes.subarray(at, at + size)));
  return events;
}

describe('EventParser', () => {
  const stream = encode(': hello\n\nevent: track\nid: 7\ndata: {"title":"Für"}\n\ndata: a\r\ndata:b\r\rdata\n\nevent: lost\n\n');

  it('reads the same events however the bytes are cut', () => {
    const whole = all(stream, stream.length);
    expect(whole).toEqual([
      { event: 'track', data: '{"title":"Für"}', id: '7' },
      { event: 'message', data: 'a\nb', id: '7' },
      { event: 'message', data: '', id: '7' },
    ]);
    for (const size of [1, 2, 3, 5, 7]) expect(all(stream, size)).toEqual(whole);
  });

  it('does not give out an event that has not ended', () => {
    const parser = new EventParser();
    expect(parser.push(encode('data: half\n'))).toEqual([]);
    expect(parser.push(encode('\n'))).toHaveLength(1);
  });

  it('keeps the wished delay and ignores a broken one', () => {
    const parser = new EventParser();
    parser.push(encode('retry: 2500\nretry: soon\n'));
    expect(parser.retry).toBe(2500);
  });

  it('refuses a line without end', () => {
    const parser = new EventParser();
    const chunk = encode('x'.repeat(1024 * 1024));
    expect(() => {
      for (let i = 0; i < 6; i += 1) parser.push(chunk);
    }).toThrow('too large');
  });
});
