"""What a policy costs a hit: the reference policy on beside off, in interleaved rounds.

The rule reads the country, three headers, two claims and one value of `ctx` for each request, and keeps no verdict between them. Both edges
get the same requests, with those headers and tickets; the one has no policy. The cost is the difference within a round.
"""

import contextlib
import pathlib

import load
from measure import WARM_SECONDS, interval
from policyfiles import CTX, HEADERS, VERDICTS, script
from processes import Cores, Failure, say
from servers import Origin

SIZE = "1 KB"
#: Microseconds of CPU that the reference policy may cost a hit.
MOST_US = 1.5
#: So many that neither edge waits for the load. With few, `wrk` sleeps between answers, the more often the longer one takes, and the edge
#: pays for waking it: at 64 connections a third of the difference between the two edges is that.
CONNECTIONS = 256


class Policy:
    def __init__(self, segue, hits, cores: Cores, folder: pathlib.Path):
        self.segue = segue
        self.hits = hits.showing(HEADERS, script(load.WRK_SCRIPT))
        self.hits.connections = CONNECTIONS
        self.cores = cores
        self.folder = folder

    def measure(self, rounds: int) -> dict:
        size = load.SIZES[SIZE]
        items = load.objects(size)
        place = self.folder / "policy"
        load.write_objects(place / "objects", size)
        with Origin(place / "origin", place / "objects", self.cores) as origin, contextlib.ExitStack() as running:
            servers = {}
            targets = self.segue.urls.with_ctx(CTX).sign(items)
            for name, parts in (("off", ["events", "limits"]), ("on", ["events", "limits", "policy"])):
                server = running.enter_context(self.segue.start(self.cores.server, place / name, origin.port, parts))
                server.name = name
                load.check_bytes(name, server.port, False, items, targets, HEADERS)
                (place / f"{name}.targets").write_text("\n".join(targets) + "\n")
                self.hits.run(server, place, WARM_SECONDS, size)
                servers[name] = server
            taken = []
            for number in range(rounds):
                order = list(servers.values())[:: 1 if number % 2 else -1]
                one = {server.name: self.hits.run(server, place, self.hits.seconds, size) for server in order}
                say(f"policy, {SIZE}: round {number + 1}/{rounds}, CPU per request: "
                    + ", ".join(f"{name} {one[name]['cpu_us']:.2f} us" for name in servers)
                    + f"; the policy {one['on']['cpu_us'] - one['off']['cpu_us']:.2f} us")
                taken.append(one)
            asked = sum(one["on"]["requests"] for one in taken)
            verdicts = servers["on"].metrics().get(VERDICTS, 0)
            if verdicts < asked:
                raise Failure(f"the policy was asked {verdicts:.0f} times for {asked} requests: this measured something else")
        cost = interval([one["on"]["cpu_us"] - one["off"]["cpu_us"] for one in taken])
        return {"size": SIZE, "rounds": taken, "cost_us": cost, "verdicts": verdicts}


def text(result: dict) -> str:
    cost = result["cost_us"]
    met = "met" if cost["median"] <= MOST_US else "**missed**"
    return (f"A policy that looks at the country, three headers, two claims and `ctx` for each request costs a hit of {result['size']} "
            f"{cost['median']:.2f} [{cost['low']:.2f}, {cost['high']:.2f}] µs of CPU (at most {MOST_US}: {met}): the difference between two edges, "
            f"with it and without, under {CONNECTIONS} connections, in {len(result['rounds'])} interleaved rounds.")
