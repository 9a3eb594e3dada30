"""Proves the limits: three edges, one hot track, a real redis-server. Writes docs/limits-proof.json, docs/limits.svg and the
figures in docs/limits.md. At 60 s a run it takes seven and a half minutes.

Every admission is written down with its moment by the edge that made it; a bucket of the configured rate and burst
is then run over all of them together. What it is overdrawn by, in any window, is the excess.
"""

import argparse
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
from figures import write_down  # noqa: E402
from plot import DOT, GRID, INK, MARK, SOFT, line, text  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: The leases of a class by default, in seconds.
LEASE = 0.3
#: How long a request may wait, as the example has it.
MAX_WAIT_MS = 50
#: What a wait may lie beyond that and how late timers were: the clock's grain, and the task's turn.
GRAIN_MS = 5
#: Requests a second offered to three edges together.
OFFERED = 20_000


class Redis:
    """A redis-server without persistence, on a free port."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/"

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no",
             "--loglevel", "warning"], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise SystemExit("redis-server does not listen")

    def kill(self):
        self.process.kill()
        self.process.wait()


def run(edge, redis, rate, burst, loads, seconds, meanwhile=lambda: None):
    """Runs an edge for each load; what they say, and all moments of admission in order (seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        edges = []
        for number, load in enumerate(loads):
            file = pathlib.Path(folder) / str(number)
            command = [edge, "load", redis.url, str(rate), str(burst), str(load), str(seconds), file]
            edges.append((subprocess.Popen(command, stdout=subprocess.PIPE, text=True), file))
        meanwhile()
        told, moments = [], []
        for process, file in edges:
            output, _ = process.communicate(timeout=seconds * 3 + 120)
            told.append(json.loads(output))
            raw = file.read_bytes()
            moments += [moment / 1e9 for moment in struct.unpack(f"<{len(raw) // 8}Q", raw)]
    return told, sorted(moments)


def excess(moments, rate, burst):
    """The most tokens by which any window goes beyond burst + rate * window; below zero: what was left of them."""
    level, worst, last = burst, burst, moments[0] if moments else 0
    for moment in moments:
        level = min(burst, level + (moment - last) * rate) - 1
        last = moment
        worst = min(worst, level)
    return -worst


def summary(told, moments, rate, burst, offered):
    """What one run came to. Under the limit is counted from the second second on, when the first bucket is spent."""
    settled = [moment for moment in moments if moment >= moments[0] + 2]
    span = settled[-1] - settled[0] if len(settled) > 1 else 1
    admitted, calls = len(moments), sum(edge["calls"] for edge in told)
    return {
        "rate": rate, "burst": burst, "lease_s": LEASE, "offered_per_s": round(offered),
        "asked": sum(edge["asked"] for edge in told), "admitted": admitted,
        "refused": sum(edge["refused"] for edge in told),
        "excess_tokens": round(excess(moments, rate, burst), 2),
        "settled_per_s": round(len(settled) / span, 2),
        "under_percent": round(100 * (1 - len(settled) / span / rate), 2),
        "calls": calls, "calls_per_admitted": round(calls / max(admitted, 1), 5),
        "waited": sum(edge["waited"] for edge in told),
        "wait_p99_ms": max(edge["wait_p99_ms"] for edge in told),
        "wait_max_ms": max(edge["wait_max_ms"] for edge in told),
        "noise_max_ms": max(edge["noise_max_ms"] for edge in told),
    }


def kills(edge, rate, times):
    """Redis killed and restarted empty under load; each time the limits are looked at from 2 s after its return."""
    redis, marks = Redis(), []
    period, away = 6.0, 1.0

    def meanwhile():
        time.sleep(3)
        for _ in range(times):
            redis.kill()
            killed = time.time()
            time.sleep(away)
            redis.start()
            marks.append((killed, time.time()))
            time.sleep(period - away)

    seconds = 4 + times * period + 2
    try:
        told, moments = run(edge, redis, rate, rate, [OFFERED / 3] * 3, seconds, meanwhile)
    finally:
        redis.kill()
    worst_right, worst_away = -float(rate), -float(rate)
    for number, (killed, back) in enumerate(marks):
        until = marks[number + 1][0] if number + 1 < len(marks) else back + period - away
        worst_right = max(worst_right, excess([m for m in moments if back + 2 <= m < until], rate, rate))
        worst_away = max(worst_away, excess([m for m in moments if killed <= m < back + 2], rate, rate))
    return {
        "rate": rate, "burst": rate, "kills": len(marks),
        "excess_from_2s_after": round(worst_right, 2), "excess_around_the_kill": round(worst_away, 2),
        "wait_max_ms": max(edge["wait_max_ms"] for edge in told), "max_wait_ms": MAX_WAIT_MS,
        "noise_max_ms": max(edge["noise_max_ms"] for edge in told),
        "admitted": len(moments), "per_s": [sum(1 for m in moments if moments[0] + s <= m < moments[0] + s + 1)
                                            for s in range(int(seconds))],
    }


def svg(rows):
    """Admitted a second against the limit, for each run."""
    width, top, row, left = 760, 84, 40, 220
    height = top + row * len(rows) + 40
    scale = lambda share: left + share / 1.2 * (width - left - 120)  # noqa: E731
    bottom = top + row * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" aria-labelledby="title">',
        '<title id="title">Requests admitted a second by three edges, as a share of the limit</title>',
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
        text(20, 30, "Admitted a second by three edges / the limit", size=17, weight="600"),
        text(20, 50, "one hot track, a real Redis; the first two seconds, in which the bucket empties, left out",
             size=12, color=SOFT),
    ]
    for step in range(7):
        parts += [line(scale(step * .2), top - 8, scale(step * .2), bottom, GRID),
                  text(scale(step * .2), bottom + 18, f"{step * .2:.1f}", "middle", 11, SOFT)]
    parts.append(line(scale(1), top - 12, scale(1), bottom, MARK, 2))
    for number, item in enumerate(rows):
        y = top + row * number + row / 2
        share = item["settled_per_s"] / item["rate"]
        name = f'{item["rate"]:,}/s, offered {item["offered_per_s"]:,}/s'
        parts += [text(left - 14, y + 4, name, "end"), line(scale(0), y, scale(share), y, DOT, 3),
                  f'<circle cx="{scale(share):.1f}" cy="{y:.1f}" r="6" fill="{DOT}"/>',
                  text(width - 20, y + 4, f"{share:.3f}", "end", 14, INK, "600")]
    return "\n".join([*parts, "</svg>", ""])


def overdue(row):
    """How long beyond its bound a request waited that the machine's own lateness does not explain; milliseconds."""
    return row["wait_max_ms"] - MAX_WAIT_MS - row["noise_max_ms"] - GRAIN_MS


def report(result, cores):
    """The figures as docs/limits.md shows them."""
    spare = lambda row: f'none ({-row["excess_tokens"]:,.0f} to spare)' if row["excess_tokens"] <= 0 else (  # noqa: E731
        f'**{row["excess_tokens"]}**')
    lines = [
        f'Runs of {result["seconds"]:g} s each on {cores} cores; burst = rate, lease (tau) = {LEASE * 1000:g} ms, max_wait = '
        f"{MAX_WAIT_MS} ms.", "",
        "| limit | offered | over the limit, any window | admitted a second | calls per admitted request | refused | longest wait (timers late by) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["over"] + result["under"]:
        split = "" if row in result["over"] else ", split 90/5/5"
        lines.append(
            f'| {row["rate"]:,}/s | {row["offered_per_s"]:,}/s{split} | {spare(row)} | {row["settled_per_s"]:,} | '
            f'{row["calls_per_admitted"]} | {row["refused"]:,} | {row["wait_max_ms"]} ms ({row["noise_max_ms"]} ms) |')
    kills = result["kills"]
    lines += ["", f'Redis killed and restarted empty {kills["kills"]} times, a second away each time, under {OFFERED:,}/s against '
              f'{kills["rate"]:,}/s with `on_outage = "local"`: from two seconds after each return on '
              + ("no window was over the limit" if kills["excess_from_2s_after"] <= 0 else
                 f'**{kills["excess_from_2s_after"]} tokens were over**')
              + f'; around a kill at most {max(kills["excess_around_the_kill"], 0):,.0f} tokens were (a new Redis has full buckets; '
              f'the bound is a burst of {kills["burst"]:,}). The longest wait was {kills["wait_max_ms"]} ms, with timers late by '
              f'{kills["noise_max_ms"]} ms.']
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--edge", required=True, help="the built example `limits`")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--out", type=pathlib.Path, default=ROOT / "docs")
    given = arguments.parse_args()
    result = {"seconds": given.seconds, "over": [], "under": []}
    for rate in (100, 1_000, 10_000):
        for name, loads in (("over", [OFFERED / 3] * 3), ("under", [rate * .8 * part for part in (.9, .05, .05)])):
            redis = Redis()
            try:
                told, moments = run(given.edge, redis, rate, rate, loads, given.seconds)
            finally:
                redis.kill()
            result[name].append(summary(told, moments, rate, rate, sum(loads)))
            print(name, json.dumps(result[name][-1]), flush=True)
    result["kills"] = kills(given.edge, 1_000, given.kills)
    print("kills", json.dumps(result["kills"]), flush=True)
    (given.out / "limits-proof.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "limits.svg").write_text(svg(result["over"] + result["under"]))
    if given.out == ROOT / "docs":
        write_down(given.out / "limits.md", "make limits-proof", report(result, os.cpu_count()))
    wrong = [f'{row["rate"]}/s: {row["excess_tokens"]} tokens over' for row in result["over"] if row["excess_tokens"] > 0]
    wrong += [f'{row["rate"]}/s: {row["under_percent"]} % under' for row in result["over"] if row["under_percent"] > 5]
    wrong += [f'{row["rate"]}/s: {row["calls_per_admitted"]} calls' for row in result["over"]
              if row["rate"] >= 1_000 and row["calls_per_admitted"] > .02]
    wrong += [f'{row["rate"]}/s: {row["refused"]} refused at 0.8' for row in result["under"] if row["refused"]]
    if result["kills"]["excess_from_2s_after"] > 0:
        wrong.append(f'{result["kills"]["excess_from_2s_after"]} tokens over from 2 s after a restart')
    wrong += [f'{row["rate"]}/s: a request waited {overdue(row):.1f} ms beyond its bound'
              for row in [*result["over"], *result["under"], result["kills"]] if overdue(row) > 0]
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
