/**
 * Peaks for the waveform, from the JSON that the transcoder leaves with a track.
 * Read liberally, since wavesurfer.js, audiowaveform and friends write them
 * differently: a bare array, arrays per channel, or an object with `peaks` or
 * `data` and perhaps `bits`.
 */

/** More bars than any screen has columns: the rest is folded away. */
const MAX_BARS = 4096;

export function readPeaks(json: unknown): number[] | null {
  let bits: number | null = null;
  let values: unknown = json;
  if (json && typeof json === 'object' && !Array.isArray(json)) {
    const object = json as Record<string, unknown>;
    values = object['peaks'] ?? object['data'];
    if (typeof object['bits'] === 'number') bits = object['bits'];
  }
  if (!Array.isArray(values)) return null;
  const channels: unknown[][] = Array.isArray(values[0]) ? (values as unknown[][]) : [values];
  const length = Math.max(0, ...channels.map((channel) => (Array.isArray(channel) ? channel.length : 0)));
  if (length === 0) return null;
  const scale = bits ? 2 ** (bits - 1) : 1;
  const bars = Math.min(length, MAX_BARS);
  const out = new Array<number>(bars).fill(0);
  for (const channel of channels) {
    if (!Array.isArray(channel)) continue;
    channel.forEach((value, at) => {
      if (typeof value !== 'number' || !Number.isFinite(value)) return;
      const bar = Math.min(bars - 1, Math.floor((at * bars) / length));
      out[bar] = Math.max(out[bar] ?? 0, Math.min(1, Math.abs(value) / scale));
    });
  }
  return out;
}
