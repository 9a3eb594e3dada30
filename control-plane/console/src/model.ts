/**
 * What the control plane says, as it says it: field names are those of the API
 * (times in milliseconds since the epoch, sizes in bytes).
 */

export type TrackStatus = 'uploading' | 'queued' | 'transcoding' | 'ready' | 'failed';
export type Stage = 'queued' | 'fetch' | 'probe' | 'measure' | 'encode' | 'publish';

export interface Rendition {
  name: string;
  /** Bits per second, as in the master playlist's BANDWIDTH. */
  bandwidth: number;
  codecs: string;
}

export interface Loudness {
  input_lufs: number;
  input_true_peak: number;
  gain_db: number;
}

export interface Track {
  track: string;
  title: string | null;
  artist: string | null;
  album: string | null;
  filename: string;
  status: TrackStatus;
  reason: string | null;
  message: string | null;
  created_ms: number;
  bytes: number | null;
  duration_ms: number | null;
  version: string | null;
  /** Ready, or to be heard while it is still encoded. */
  playable: boolean;
  /** 0 to 1. */
  progress: number;
  stage: Stage | null;
  artwork: string | null;
  waveform: string | null;
  loudness: Loudness | null;
  renditions: Rendition[];
  plays: number;
  qualified: number;
}

export type JobState = 'queued' | 'running' | 'publishing' | 'done' | 'failed' | 'cancelled';

export interface Job {
  job: string;
  track: string;
  state: JobState;
  priority: number;
  attempts: number;
  max_attempts: number;
  progress: number;
  stage: Stage | null;
  reason: string | null;
  message: string | null;
  created_ms: number;
  updated_ms: number;
}

export interface Upload {
  method: string;
  url: string;
  /** Signed headers: each must be replayed with the request. */
  headers: Record<string, string>;
}

/** A file that travels in parts, all but the last of `part_size` bytes. */
export interface PartsUpload {
  method: 'MULTIPART';
  part_size: number;
  parts: number;
  /** What the storage has already, where the upload was begun before. */
  present?: { number: number; bytes: number }[];
}

export interface PartUrl extends Upload {
  number: number;
  bytes: number;
}

export function isInParts(upload: Upload | PartsUpload): upload is PartsUpload {
  return upload.method === 'MULTIPART';
}

export interface Ticket {
  ticket: string;
  url: string;
  /** Seconds since the epoch, as in JWT NumericDate. */
  expires: number;
  sid: string;
}

export interface HourOfPlays {
  hour_ms: number;
  plays: number;
  qualified: number;
}

/** Where bytes came from, and how quick answers began. */
interface Delivered {
  bytes: number;
  facts: number;
  cache: { ratio: number | null; bytes_ratio: number | null; by: Record<string, { facts: number; bytes: number }> };
  ttfb_ms: Percentiles;
  /** What is heard at this moment. */
  now: { plays: number; listeners: number };
}

interface Percentiles {
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

export interface HouseHour extends HourOfPlays {
  seconds: number;
  bytes: number;
  cached_bytes: number;
  facts: number;
  cache_ratio: number | null;
  ttfb_ms: Percentiles;
  denials: number;
}

export interface HouseStats extends Delivered {
  plays: number;
  qualified: number;
  seconds: number;
  denials: { total: number; by_reason: Record<string, number> };
  hourly: HouseHour[];
  tracks: { track: string; plays: number; qualified: number; bytes: number }[];
}

export interface Stats extends Delivered {
  track: string;
  plays: number;
  qualified: number;
  ended: number;
  listeners: number;
  seconds: number;
  /** Plays that reached 25, 50, 75 and 100 % of the track. */
  quartiles: number[];
  /** Plays that reached 10, 20, … 100 %. */
  deciles: number[];
  hourly: HourOfPlays[];
}

export interface PlayEvent {
  type: 'started' | 'qualified' | 'quartile' | 'ended';
  track: string;
  play: string;
  ts: number;
  /** 25, 50, 75 or 100. */
  quartile?: number;
}

export interface Denial {
  id: string;
  ts: number;
  track?: string | null;
  path: string;
  reason: string;
  status: number;
}
