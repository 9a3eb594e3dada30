"""How many facts a second the tally counts into SQLite: an example of the control plane, on the server's core."""

import json
import pathlib
import statistics
import subprocess

from processes import Cores, Failure, say

#: Facts and listeners of one run, in the full form and in the quick one.
FULL = (400_000, 20_000)
QUICK = (40_000, 4_000)
#: Facts a second that are good enough.
TARGET = 20_000
SECONDS = 300


class Tally:
    def __init__(self, cores: Cores, command: pathlib.Path):
        self.cores = cores
        self.command = command

    def measure(self, rounds: int, quick: bool) -> dict | None:
        if not self.command.is_file():
            say(f"NOT MEASURED: the tally; there is no {self.command} (cargo build --release -p segue-control-plane --example tally)")
            return None
        facts, listeners = QUICK if quick else FULL
        runs = [self.run(facts, listeners) for _ in range(rounds)]
        rate = statistics.median(run["facts_per_second"] for run in runs)
        say(f"tally: {rate:,.0f} facts a second, median of {rounds}")
        return {"runs": runs, "facts_per_second": rate}

    def run(self, facts: int, listeners: int) -> dict:
        command = ["taskset", "-c", str(self.cores.server), str(self.command), str(facts), str(listeners)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode != 0:
            raise Failure(f"{self.command} failed with {done.returncode}: {done.stderr.strip()[-400:]}")
        return json.loads(done.stdout)


def text(result: dict) -> str:
    rate, run = result["facts_per_second"], result["runs"][0]
    met = "met" if rate >= TARGET else "**missed**"
    return (f"{rate:,.0f} facts a second on one core (at least {TARGET:,}: {met}), from the log through the rule of a play, sums and kept files into SQLite; "
            f"{run['facts']:,} facts of {run['listeners']:,} listeners who play in step, so that a batch is of as many plays as can be. "
            f"A fact that is kept takes {run['kept_bytes_per_fact']:.0f} bytes. Median of {len(result['runs'])} runs.")
