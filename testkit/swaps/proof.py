"""Proves that a policy can be swapped in the middle of a song: three edges and a control plane in processes of their own, 200 activations
among five versions, every answer explained. Writes docs/swaps.json, docs/swaps.svg and the figures in docs/policy-rollout.md.

`segue-swaps` does the work and says what it saw; this adds it up. Six minutes.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
from figures import write_down  # noqa: E402
from measure import interval  # noqa: E402
from plot import DOT, GRID, INK, MARK, SOFT, line, text  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Until a version is in force on every edge, in milliseconds.
IN_FORCE_MS = 1000
#: p99 with swaps against p99 without, at most.
RATIO = 1.2


def quantile(ordered, share):
    """Of sorted values: the smallest that at least this share is not above."""
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)] if ordered else 0.0


def spread(ordered):
    return {"n": len(ordered), "p50": quantile(ordered, 0.5), "p99": quantile(ordered, 0.99), "max": ordered[-1] if ordered else 0.0}


def slope(stretches):
    """CPU time of a swap, in milliseconds: least squares over stretches of one length, for each round and then their interval."""
    by_round = [stretches[at:at + 4] for at in range(0, len(stretches), 4)]
    slopes = {"edges": [], "control": []}
    for stretch in by_round:
        swaps = [one["swaps"] / one["seconds"] for one in stretch]
        middle = sum(swaps) / len(swaps)
        for name in slopes:
            cpu = [one[f"{name}_cpu_s"] / one["seconds"] for one in stretch]
            mean = sum(cpu) / len(cpu)
            below = sum((swap - middle) ** 2 for swap in swaps)
            slopes[name].append(1000 * sum((swap - middle) * (used - mean) for swap, used in zip(swaps, cpu, strict=True)) / below)
    return {name: interval(values) for name, values in slopes.items()}


def added_up(raw):
    """The figures that are kept and shown."""
    result = {key: raw[key] for key in ("seed", "rate", "cores", "requests", "served", "denied", "failed", "unexplained", "violations")}
    for name in ("swaps", "full"):
        if raw[name]:
            one = dict(raw[name])
            one["in_force_ms"], one["answered_ms"] = spread(one["in_force_ms"]), spread(one["answered_ms"])
            result[name] = one
    pairs = [{"without": without, "with": with_, "ratio": with_["took"]["p99_ms"] / without["took"]["p99_ms"]} for without, with_ in raw["pairs"]]
    result["pairs"] = pairs
    if pairs:
        result["p99"] = {
            "without_ms": interval([pair["without"]["took"]["p99_ms"] for pair in pairs]),
            "with_ms": interval([pair["with"]["took"]["p99_ms"] for pair in pairs]),
            "ratio": interval([pair["ratio"] for pair in pairs]),
        }
    if raw["slopes"]:
        result["slopes"], result["cpu_ms_per_swap"] = raw["slopes"], slope(raw["slopes"])
    result["in_force_ms"] = {name: raw[name]["in_force_ms"] for name in ("swaps", "full") if raw[name]}
    return result


def svg(result):
    """For each kind of load: which share of edges stood on a version so long after its call."""
    width, top, left, height = 760, 92, 70, 360
    bottom, right = height - 50, width - 30
    longest = max(max(values) for values in result["in_force_ms"].values())
    end = next(step for step in (50, 100, 200, 500, 1000, 2000, 5000, 10000) if step >= longest or step == 10000)
    x = lambda ms: left + min(ms, end) / end * (right - left)  # noqa: E731
    y = lambda share: bottom - share * (bottom - top)  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" aria-labelledby="title">',
        '<title id="title">From the call that activates a version until an edge decides by it</title>',
        f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
        text(20, 30, "From the call until an edge decides by the new version", size=17, weight="600"),
        text(20, 50, f"share of swaps and edges, as the first request showed it; the bound is {IN_FORCE_MS} ms", size=12, color=SOFT),
    ]
    for step in range(6):
        at = end * step / 5
        parts += [line(x(at), top, x(at), bottom, GRID), text(x(at), bottom + 18, f"{at:g} ms", "middle", 11, SOFT)]
    for share in (0, .25, .5, .75, 1):
        parts += [line(left, y(share), right, y(share), GRID), text(left - 8, y(share) + 4, f"{share * 100:.0f} %", "end", 11, SOFT)]
    for color, (name, values) in zip((DOT, MARK), result["in_force_ms"].items(), strict=False):
        points = " ".join(f"{x(ms):.1f},{y((number + 1) / len(values)):.1f}" for number, ms in enumerate(values))
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{x(0):.1f},{y(0):.1f} {points}"/>')
        words = f'{result[name]["per_second"]:,.0f} requests/s: {len(values)} seen, the last after {values[-1]:.0f} ms'
        parts += [line(left + 12, 70 + 14 * (color == MARK), left + 32, 70 + 14 * (color == MARK), color, 3),
                  text(left + 40, 74 + 14 * (color == MARK), words, size=12, color=INK)]
    return "\n".join([*parts, "</svg>", ""])


def between(one, digits=2):
    return f'{one["median"]:.{digits}f} [{one["low"]:.{digits}f}, {one["high"]:.{digits}f}]'


def report(result):
    """The figures as docs/policy-rollout.md shows them."""
    rows = ["| load on three edges | activations | answered a second | in force on an edge: median, p99, longest | call answered, every edge named: median, p99, longest |",
            "|---|---|---|---|---|"]
    for name, words in (("swaps", f'{result["rate"]:,} requests/s at a fixed beat'), ("full", "24 connections that never pause")):
        if name in result:
            one = result[name]
            times = lambda spread: f'{spread["p50"]:.1f}, {spread["p99"]:.1f}, {spread["max"]:.1f} ms'  # noqa: E731
            rows.append(f'| {words} | {one["activations"]} | {one["per_second"]:,.0f} | {times(one["in_force_ms"])} | {times(one["answered_ms"])} |')
    served, denied = sum(result["served"].values()), sum(result["denied"].values())
    lines = [f'One run on {result["cores"]} cores, which load, edges and control plane share; segments of 3 to 12 KB in memory, 60 sessions with tickets.', "", *rows, "",
             f'{result["requests"]:,} requests: {served:,} segments, each with one fact whose policy and tag are one version; {denied:,} playlists, refused by the three sound '
             f'versions as their rule is; {result["failed"]:,} refused with 503, while the version that traps or the one that loops was active; '
             f'**{result["unexplained"]}** that the version in force does not explain. What the edges counted, by version and verdict, is what clients got.']
    if "p99" in result:
        one = result["p99"]
        met = "met" if one["ratio"]["median"] <= RATIO else "**missed**"
        lines += ["", f'With two swaps a second among sound versions p99 is {between(one["with_ms"])} ms, without {between(one["without_ms"])} ms; the ratio {between(one["ratio"])} '
                  f'(at most {RATIO}: {met}), in {one["ratio"]["n"]} interleaved pairs of {result["pairs"][0]["without"]["seconds"]:.0f} s (median and range; time from the moment at which a request was due; the control plane, which has a machine of its own elsewhere, at the lowest priority).']
    if "cpu_ms_per_swap" in result:
        one = result["cpu_ms_per_swap"]
        lines += ["", f'A swap costs the three edges {between(one["edges"])} ms of CPU together (user and system), the control plane {between(one["control"])} ms: the slope over 0, 2.5, 5 and 10 swaps a second beside 300 requests/s, '
                  f'{one["edges"]["n"]} rounds.']
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--swaps", required=True, help="the built `segue-swaps`")
    arguments.add_argument("--segue", required=True, help="the command under test")
    arguments.add_argument("--raw", type=pathlib.Path, help="what an earlier run of segue-swaps said, in place of one now")
    arguments.add_argument("--out", type=pathlib.Path, default=ROOT / "docs")
    given, more = arguments.parse_known_args()
    if given.raw:
        said = given.raw.read_text()
    else:
        done = subprocess.run([given.swaps, "--segue", given.segue, *more], stdout=subprocess.PIPE, text=True, check=False)
        said = done.stdout
    if not said.strip():
        sys.exit("segue-swaps said nothing")
    result = added_up(json.loads(said))
    drawing = svg(result)
    del result["in_force_ms"]
    (given.out / "swaps.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "swaps.svg").write_text(drawing)
    print(report(result))
    if given.out == ROOT / "docs":
        write_down(given.out / "policy-rollout.md", "make swaps-proof", report(result))
    wrong = list(result["violations"])
    for name in ("swaps", "full"):
        if name in result:
            one = result[name]
            wrong += [f'{name}: {one["in_force_ms"]["max"]} ms until a version was in force'] * (one["in_force_ms"]["max"] > IN_FORCE_MS)
            wrong += [f'{name}: {one["unanswered"]} activations that edges did not confirm in time'] * (one["unanswered"] > 0)
    if "p99" in result and result["p99"]["ratio"]["median"] > RATIO:
        wrong.append(f'p99 with swaps is {result["p99"]["ratio"]["median"]:.2f} times that without')
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
