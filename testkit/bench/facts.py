"""What a fact costs, and what it costs a listener that the sink of the facts is away.

Two edges stand beside each other: the one keeps its facts in the local log and has no sink, the other tries all the
while to reach one that is not there. Whatever the second one's requests pay more than the first one's is the sink's doing.
"""

import contextlib
import pathlib
import re
import subprocess

import load
from measure import WARM_SECONDS, interval
from processes import Cores, Failure, say
from servers import Origin

#: Sizes of which hits are measured.
SIZES = ("1 KB", "32 KB")
#: What a fact may cost until it is in the local log, in nanoseconds of CPU, and what a sink that is away may change.
FACT_NS = 2000
AWAY_SHARE = 0.05
COST_SECONDS = 300
LINE = re.compile(r"^\s*(?P<name>[^:]+):\s+(?P<cpu>\d+) ns of CPU a fact", re.MULTILINE)
SHIP = re.compile(r"^\s*ship:\s+(?P<rate>\d+) facts a second", re.MULTILINE)


class Facts:
    def __init__(self, segue, hits, cores: Cores, folder: pathlib.Path, cost: pathlib.Path):
        self.segue = segue
        self.hits = hits
        self.cores = cores
        self.folder = folder
        self.cost = cost

    def measure(self, rounds: int) -> dict:
        return {"fact": self.fact(), "away": [self.away(label, rounds) for label in SIZES]}

    def fact(self) -> dict | None:
        """The example of segue-events, on the server's core."""
        if not self.cost.is_file():
            say(f"NOT MEASURED: the cost of a fact; there is no {self.cost} (cargo build --release -p segue-events --example cost)")
            return None
        command = ["taskset", "-c", str(self.cores.server), str(self.cost), str(self.folder / "cost")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COST_SECONDS, check=False)
        costs = {match["name"]: int(match["cpu"]) for match in LINE.finditer(done.stdout)}
        ship = SHIP.search(done.stdout)
        if done.returncode != 0 or "note+settle" not in costs or not ship:
            raise Failure(f"{self.cost} failed with {done.returncode}: {done.stderr.strip()} {done.stdout[-400:]}")
        say(f"facts: {costs['note+settle']} ns of CPU until a fact is in the log, {int(ship['rate']):,} a second through log and shipping")
        return {"cpu_ns": costs, "ship_per_second": int(ship["rate"])}

    def away(self, label: str, rounds: int) -> dict:
        size = load.SIZES[label]
        items = load.objects(size)
        place = self.folder / f"facts-{size}"
        load.write_objects(place / "objects", size)
        with Origin(place / "origin", place / "objects", self.cores) as origin, contextlib.ExitStack() as running:
            servers = {}
            targets = self.segue.urls.sign(items)
            for name, part in (("kept", "events"), ("away", "away")):
                server = running.enter_context(self.segue.start(self.cores.server, place / name, origin.port, [part]))
                server.name = name
                load.check_bytes(name, server.port, False, items, targets)
                (place / f"{name}.targets").write_text("\n".join(targets) + "\n")
                self.hits.run(server, place, WARM_SECONDS, size)
                servers[name] = server
            taken = []
            for number in range(rounds):
                order = list(servers.values())[:: 1 if number % 2 else -1]
                one = {server.name: self.hits.run(server, place, self.hits.seconds, size) for server in order}
                say(f"facts, {label}: round {number + 1}/{rounds}, CPU per request: "
                    + ", ".join(f"{name} {one[name]['cpu_us']:.1f} us, p50 {one[name]['p50_us']} us" for name in servers))
                taken.append(one)
            failures = {name: value for name, value in servers["away"].metrics().items()
                        if name.startswith("segue_ship_failures_total") and value}
            if not failures:
                raise Failure("the edge whose sink is away never missed it: this measured nothing")
        ratios = {key: interval([one["away"][key] / one["kept"][key] for one in taken]) for key in ("cpu_us", "p50_us", "p99_us")}
        return {"size": label, "rounds": taken, "failures": failures, "ratios": ratios}


def text(result: dict) -> str:
    fact = result["fact"]
    if not fact:
        return "The cost of a fact by itself was not measured."
    cost = fact["cpu_ns"]["note+settle"]
    met = "met" if cost <= FACT_NS else "**missed**"
    return (f"A fact costs {cost / 1000:.2f} µs of CPU until it is in the local log, noted before the last write and settled after it "
            f"(at most {FACT_NS / 1000:.0f}: {met}); all of that is on the request's path. {fact['ship_per_second']:,} facts a second go from the log "
            "through the shipping loop on one thread. With the sink away a hit pays, relative to an edge that has none:")


def table(result: dict) -> str:
    def cell(value: dict) -> str:
        return f"{value['median']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"

    rows = ["| size | CPU per hit | | median latency | 99th percentile |", "|---|---|---|---|---|"]
    for one in result["away"]:
        ratios = one["ratios"]
        met = "met" if ratios["cpu_us"]["median"] <= 1 + AWAY_SHARE else "**missed**"
        rows.append(f"| {one['size']} | {cell(ratios['cpu_us'])} | at most {1 + AWAY_SHARE:.2f}: {met} | {cell(ratios['p50_us'])} | {cell(ratios['p99_us'])} |")
    return "\n".join(rows)
