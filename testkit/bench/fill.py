"""Cold fill: a crowd on one object that nobody has asked for before, behind a slow origin."""

import hashlib
import json
import pathlib
import subprocess
import sys

import load
from measure import interval, percentile
from processes import Cores, Failure, Process, free_port, say
from servers import Segue, Server, start_nginx_edge

HERE = pathlib.Path(__file__).resolve().parent
CLIENTS = 1000
SIZE = 200 * load.KIB
FIRST_BYTE_MS = 300
RATE = 50 * load.KIB
#: Sessions, each with its ticket, among which the crowd is spread.
SESSIONS = 50
ROUND_WITHIN = 60.0


class Fill:
    """Rounds of the crowd against both servers, each round on an object of its own."""

    def __init__(self, segue: Segue, cores: Cores, folder: pathlib.Path):
        self.segue = segue
        self.cores = cores
        self.folder = folder / "fill"
        self.folder.mkdir()

    def measure(self, rounds: int) -> dict:
        port = free_port()
        command = [sys.executable, "-B", HERE / "slow_origin.py", "--port", port, "--size", SIZE,
                   "--first-byte-ms", FIRST_BYTE_MS, "--rate", RATE]
        with Process("slow origin", command, self.cores.load, self.folder / "origin.log") as origin:
            origin.wait_for_port(port)
            with (
                self.segue.start(self.cores.server, self.folder / "segue", port, ["events", "limits"]) as segue,
                start_nginx_edge(self.cores.server, self.folder / "nginx", port, None) as nginx,
            ):
                sides = [(segue, self.segue.urls), (nginx, load.NginxUrls())]
                results = {"segue": [], "nginx": []}
                for number in range(rounds):
                    for server, urls in sides if number % 2 == 0 else reversed(sides):
                        result = self.round(server, urls, origin.log, number)
                        results["segue" if server is segue else "nginx"].append(result)
                        say(f"cold fill, {server.name}, round {number + 1}/{rounds}: {result['gets']} GET at the origin, "
                            f"{result['whole']} of {CLIENTS} whole, first byte +{result['median_ms']:.1f} ms at the median, "
                            f"+{result['p99_ms']:.1f} ms at the 99th percentile")
        return {"clients": CLIENTS, "size": SIZE, "first_byte_ms": FIRST_BYTE_MS, "rate": RATE, "rounds": results,
                "summary": {name: summarise(list_) for name, list_ in results.items()}}

    def round(self, server: Server, urls, log: pathlib.Path, number: int) -> dict:
        item = load.Object(f"{load.rendition(f'fill{server.name}{number:02d}')}/seg-00000.m4s", SIZE)
        distinct = SESSIONS if server.name == "segue" else 1
        targets = self.folder / f"{server.name}-{number}.targets"
        targets.write_text("\n".join(urls.sign([item] * distinct)) + "\n")
        command = ["taskset", "-c", self.cores.load, sys.executable, "-B", HERE / "crowd.py", "--port", server.port,
                   "--targets", targets, "--clients", CLIENTS, "--timeout", ROUND_WITHIN,
                   "--sha256", hashlib.sha256(item.bytes).hexdigest()]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                              timeout=ROUND_WITHIN + 30, check=False)
        if done.returncode != 0:
            raise Failure(f"the crowd against {server.name} failed: {done.stderr.strip()[-800:]}")
        seen = json.loads(done.stdout)
        asked = [line for line in map(json.loads, log.read_text().splitlines()) if line["path"] == item.path]
        if not asked:
            raise Failure(f"{server.name} never asked the origin for {item.path}; statuses: {seen['statuses']}\n{server.tail()}")
        origin = min(asked, key=lambda line: line["first_ns"])
        delays = [(first - origin["first_ns"]) / 1e6 for first in seen["first_ns"] if first]
        ends = [(end - origin["end_ns"]) / 1e6 for end in seen["end_ns"] if end]
        if not delays or not ends:
            raise Failure(f"{server.name} gave nobody anything; statuses: {seen['statuses']}\n{server.tail()}")
        return {
            "gets": len(asked),
            "whole": seen["whole"],
            "statuses": seen["statuses"],
            "median_ms": percentile(delays, 0.5),
            "p99_ms": percentile(delays, 0.99),
            "most_ms": max(delays),
            "end_median_ms": percentile(ends, 0.5),
            "end_p99_ms": percentile(ends, 0.99),
            "asking_ms": (seen["sent_ns"][1] - seen["sent_ns"][0]) / 1e6,
        }


def summarise(rounds: list[dict]) -> dict:
    return {
        "gets_most": max(r["gets"] for r in rounds),
        "whole_least": min(r["whole"] for r in rounds),
        **{key: interval([r[key] for r in rounds]) for key in ("median_ms", "p99_ms", "end_median_ms", "end_p99_ms")},
    }
