/**
 * What the control plane says of policies, and what follows from it for the page: words for a verdict, a difference, a swap; the steps of the
 * chart. Nothing here touches the page.
 */

import { count, plural } from './format';

export type PolicyState = 'checked' | 'pushed' | 'shadow' | 'canary' | 'active';

export interface PolicyVersion {
  version: string;
  state: PolicyState;
  digest: string;
  bytes: number;
  order: number;
  on_failure: 'closed' | 'open';
  vectors: number;
  signer?: string;
  uploaded_by: string;
  note?: string;
  created_ms: number;
  /** Edges that are alive and have it ready. */
  ready: number;
}

export interface PolicyEdge {
  edge: string;
  alive: boolean;
  deciding: string | null;
  is_kept: boolean;
  ready: string[];
  problems: { version: string; problem: string }[];
}

export interface Policy {
  policy: string;
  world: 'access' | 'ticket-scheme';
  order: number;
  on_failure: 'closed' | 'open';
  active: string | null;
  candidate: { version: string; trial: 'shadow' | 'canary'; percent?: number; since_ms: number } | null;
  rollback: { from: string | null; to: string | null; ends_canary: boolean } | null;
  /** Newest first. */
  versions: PolicyVersion[];
  edges: PolicyEdge[];
}

export interface HistoryLine {
  seq: number;
  at_ms: number;
  by: string;
  act: string;
  version: string | null;
  from: string | null;
  percent?: number;
  note?: string;
}

export interface VerdictPoint {
  at_ms: number;
  version: string;
  verdict: string;
  reason: string;
  calls: number;
  took_ns: number;
}

export interface Verdicts {
  from_ms: number;
  step_ms: number;
  points: VerdictPoint[];
}

export interface PolicyPair {
  said: string;
  would: string;
  effect: 'same' | 'newly-denied' | 'newly-allowed' | 'would-fail' | 'otherwise';
  count: number;
  share: number;
  examples: { ts: number; path: string; country?: string; session: string }[];
}

export interface PolicyDiff {
  shadow: string;
  active: string | null;
  running: boolean;
  since_ms: number | null;
  requests: number;
  agree: number;
  differ: number;
  newly_denied: number;
  newly_allowed: number;
  would_fail: number;
  pairs: PolicyPair[];
  latency: { active_ns: number | null; shadow_ns: number | null };
}

/** What a swap came to. */
export interface Swapped {
  policy: Policy;
  done: string;
  version: string | null;
  from: string | null;
  edges: { alive: number; on: string[]; not_on: { edge: string; problem?: string }[] };
}

export type Swap =
  | { act: 'push' | 'shadow' | 'active'; version: string }
  | { act: 'canary'; version: string; percent: number }
  | { act: 'rollback' | 'end-trial' | 'disable' };

export interface Step {
  at_ms: number;
  allowed: number;
  denied: number;
  failed: number;
}

/** The steps of the chart, also those in which nobody asked: up to `now`. */
export function steps(verdicts: Verdicts, now: number): Step[] {
  const { from_ms, step_ms, points } = verdicts;
  const all: Step[] = [];
  for (let at = from_ms; at <= now; at += step_ms) all.push({ at_ms: at, allowed: 0, denied: 0, failed: 0 });
  for (const point of points) {
    const step = all[Math.floor((point.at_ms - from_ms) / step_ms)];
    if (!step) continue;
    if (point.verdict === 'allow' || point.verdict === 'abstain') step.allowed += point.calls;
    else if (point.verdict === 'deny') step.denied += point.calls;
    else step.failed += point.calls;
  }
  return all;
}

/** `1.3 %`; what is there and small is not nothing. */
export function share(part: number, of: number): string {
  if (of <= 0) return '–';
  const percent = (part / of) * 100;
  if (percent > 0 && percent < 0.1) return '< 0.1 %';
  return `${percent.toFixed(percent >= 99.95 || percent === 0 ? 0 : 1)} %`;
}

/** `deny:too-early` is `deny, too early`. */
export function verdictWords(word: string): string {
  if (word === 'none') return 'no version asked';
  const [verdict = '', reason] = word.split(':');
  return reason ? `${verdict}, ${reason.replace(/[-_]/g, ' ')}` : verdict.replace(/-/g, ' ');
}

/** A call's time: `0.51 µs`, `12 µs`, `1.4 ms`. */
export function callTime(ns: number | null): string {
  if (ns === null) return '–';
  if (ns < 10_000) return `${(ns / 1_000).toFixed(2)} µs`;
  if (ns < 1_000_000) return `${Math.round(ns / 1_000)} µs`;
  return `${(ns / 1_000_000).toFixed(1)} ms`;
}

/** The first sentence about a shadow. */
export function verdictOn(diff: PolicyDiff): string {
  const { shadow, requests } = diff;
  if (requests === 0) return `${shadow} was not asked yet. Edges report every few seconds.`;
  if (diff.differ === 0) return `${shadow} says the same about all ${plural(requests, 'request')}.`;
  const parts: string[] = [];
  const part = (words: string, number: number) => {
    if (number > 0) parts.push(`${words} ${count(number)} (${share(number, requests)})`);
  };
  part('newly deny', diff.newly_denied);
  part('newly allow', diff.newly_allowed);
  part('fail at', diff.would_fail);
  part('say otherwise about', diff.differ - diff.newly_denied - diff.newly_allowed - diff.would_fail);
  return `Of ${plural(requests, 'request')}, ${shadow} would ${parts.join(' and ')}.`;
}

export function aliveEdges(policy: Policy): PolicyEdge[] {
  return policy.edges.filter((edge) => edge.alive);
}

/** Edges that are on what should decide. */
export function onIt(policy: Policy): number {
  return aliveEdges(policy).filter((edge) => edge.deciding === policy.active && !edge.is_kept).length;
}

export function triedWords(policy: Policy): string {
  const { candidate } = policy;
  if (!candidate) return 'none';
  return candidate.trial === 'canary' ? `${candidate.version} for ${candidate.percent ?? 0} %` : `${candidate.version} as shadow`;
}

/** What a swap will do, for the one who is about to do it. */
export function question(policy: Policy, swap: Swap): { title: string; body: string; act: string } {
  const name = policy.policy;
  const active = policy.active ?? 'no version';
  const alive = aliveEdges(policy);
  const readiness = (version: string) => {
    const missing = alive.filter((edge) => !edge.ready.includes(version)).map((edge) => edge.edge);
    if (alive.length === 0) return 'No edge has reported of late; those that come will follow.';
    if (missing.length === 0) return alive.length === 1 ? 'The edge has it ready.' : `All ${alive.length} edges have it ready.`;
    return `Not ready yet: ${missing.join(', ')}; what is not ready goes on with what it has.`;
  };
  switch (swap.act) {
    case 'push':
      return { title: `Push ${name} ${swap.version}?`, body: 'Every edge fetches and compiles it. It decides nothing.', act: 'Push' };
    case 'shadow':
      return {
        title: `Try ${name} ${swap.version} as shadow?`,
        body: `It is asked beside ${active} and is not heeded: no listener notices. What it would have said is counted here. ${readiness(swap.version)}`,
        act: 'Start shadow',
      };
    case 'canary':
      return {
        title: `Let ${name} ${swap.version} decide for a share of sessions?`,
        body: `For these listeners it decides in place of ${active}, from one request to the next. A session stays on its side. ${readiness(swap.version)}`,
        act: 'Start canary',
      };
    case 'active':
      return {
        title: `Let ${name} ${swap.version} decide for everybody?`,
        body: `It takes the place of ${active} on every edge within a second; no song stops for it. ${readiness(swap.version)} One rollback takes it back.`,
        act: 'Activate',
      };
    case 'end-trial':
      return { title: `End the trial of ${name} ${policy.candidate?.version ?? ''}?`, body: `${active} decides for everybody.`, act: 'End trial' };
    case 'disable':
      return {
        title: `Turn ${name} off?`,
        body: `No version decides: nobody enforces this rule from then on. One rollback brings ${active} back.`,
        act: 'Turn off',
      };
    case 'rollback': {
      const { from, to, ends_canary } = policy.rollback ?? { from: null, to: null, ends_canary: false };
      return ends_canary
        ? { title: `End the canary of ${name} ${from ?? ''}?`, body: `${to ?? 'No version'} decides for everybody within a second.`, act: 'Roll back' }
        : {
            title: `Roll ${name} back to ${to ?? 'no version'}?`,
            body: to
              ? `${to} decides for everybody within a second, in place of ${from ?? 'none'}. ${readiness(to)}`
              : `Before ${from ?? 'it'} there was none: nobody enforces this rule from then on.`,
            act: 'Roll back',
          };
    }
  }
}

/** What was done, and who is not there yet. */
export function outcome(swapped: Swapped): string {
  const { policy, version, from, done, edges } = swapped;
  const name = policy.policy;
  const words: Record<string, string> = {
    push: `${name} ${version} is pushed.`,
    shadow: `${name} ${version} is a shadow.`,
    canary: `${name} ${version} decides for ${policy.candidate?.percent ?? 0} % of sessions.`,
    activate: `${name} ${version} decides.`,
    rollback: `${name}: ${version ?? 'no version'} decides again.`,
    'end-canary': `${name}: the canary ${from} is over.`,
    'end-trial': `${name}: ${version} is no longer tried.`,
    disable: `${name} is off.`,
  };
  const said = words[done] ?? `${name} stood so already.`;
  if (edges.not_on.length === 0) return said;
  return `${said} Not there yet: ${edges.not_on.map((one) => one.edge).join(', ')}.`;
}

export function historyWords(line: HistoryLine): string {
  const version = line.version ?? 'no version';
  switch (line.act) {
    case 'upload':
      return `uploaded ${version}`;
    case 'push':
      return `pushed ${version}`;
    case 'shadow':
      return `started ${version} as shadow`;
    case 'canary':
      return `let ${version} decide for ${line.percent ?? 0} %`;
    case 'activate':
      return `activated ${version}${line.from ? `, before ${line.from}` : ''}`;
    case 'rollback':
      return `rolled back to ${version}${line.from ? ` from ${line.from}` : ''}`;
    case 'end-canary':
      return `ended the canary ${line.from ?? ''}`.trim();
    case 'end-trial':
      return `ended the trial of ${version}`;
    case 'disable':
      return `turned it off${line.from ? ` (${line.from} decided)` : ''}`;
    case 'delete':
      return `deleted ${version}`;
    default:
      return `${line.act.replace(/-/g, ' ')}${line.version ? ` ${line.version}` : ''}`;
  }
}
