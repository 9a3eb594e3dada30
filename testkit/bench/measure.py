"""CPU time from the kernel's own accounts, medians with intervals, and the interleaved rounds of cache hits."""

import contextlib
import copy
import math
import os
import pathlib
import resource
import time

import load
from processes import Cores, Failure, family, say, stat_fields
from servers import NGINX_FORMS, Origin, Segue, Server, start_nginx_edge

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
#: Seconds of load before a series, in which nothing is measured.
WARM_SECONDS = 1
#: Memory that Segue's edge has beside one object, where hits are to come from its disk.
MEMORY_BESIDE = 16 * load.KIB
#: How long the disk tier may take to write what was filled, and the share of hits that must come from it.
SETTLE_SECONDS = 20
DISK_SHARE = 0.9
#: Above this share of the server's core taken by strangers, a run is called disturbed.
STRANGERS = 0.10


def cpu_us(server: Server) -> dict[int, tuple[float, float]]:
    """User and system time of the server's processes, all threads, in microseconds, by process id."""
    times = {}
    for pid in family(server.pid):
        fields = stat_fields(pid)
        if fields:
            # utime and stime are the 14th and 15th fields of proc(5), the 12th and 13th after the name.
            times[pid] = (int(fields[11]) * TICK_US, int(fields[12]) * TICK_US)
    return times


def busy_us(core: int) -> float:
    """Time that the core was not idle, in microseconds; time stolen by the hypervisor counts as busy."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"cpu{core} "):
                user, nice, system, _idle, _wait, irq, soft, steal = (int(field) for field in line.split()[1:9])
                return (user + nice + system + irq + soft + steal) * TICK_US
    raise Failure(f"/proc/stat knows no core {core}")


def interval(values: list[float]) -> dict:
    """Median, and the narrowest pair of order statistics that holds the true median with 95 % confidence.

    Where there are too few values for 95 % it is the smallest and the largest; `coverage` says what that is worth
    (binomial with p = 1/2, no assumption about the distribution).
    """
    ordered = sorted(values)
    count = len(ordered)
    middle = count // 2
    median = ordered[middle] if count % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    cut, coverage = 0, inside(count, 0)
    while cut + 1 < count // 2 and inside(count, cut + 1) >= 0.95:
        cut, coverage = cut + 1, inside(count, cut + 1)
    return {"median": median, "low": ordered[cut], "high": ordered[count - 1 - cut], "coverage": coverage, "n": count}


def inside(count: int, cut: int) -> float:
    """Confidence that the median lies between the values number cut+1 and count-cut."""
    outside = sum(math.comb(count, k) for k in range(cut + 1)) / 2**count
    return 1 - 2 * outside


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Hits:
    """One series: one size, plain or TLS, all servers beside each other."""

    def __init__(self, segue: Segue, cores: Cores, folder: pathlib.Path, certificate, seconds: int):
        self.segue = segue
        self.cores = cores
        self.folder = folder
        self.certificate = certificate
        self.seconds = seconds
        self.script = folder / "load.lua"
        self.script.write_text(load.WRK_SCRIPT)
        self.connections = load.CONNECTIONS
        #: Headers of every request, and parts of the configuration that the edge has beside the usual ones.
        self.headers: dict = {}
        self.beside: list[str] = []

    def showing(self, headers: dict, script: str, beside: tuple = ()) -> "Hits":
        """The same, whose requests show more."""
        other = copy.copy(self)
        other.script = self.folder / f"load-{len(headers)}.lua"
        other.script.write_text(script)
        other.headers, other.beside = headers, list(beside)
        return other

    def series(self, label: str, size: int, tls: bool, rounds: int, disk: bool = False) -> dict:
        """Fresh servers, warmed and checked; then rounds, each begun by another server; then checked again.

        With `disk`, Segue's memory holds one object at a time, so that hits come from its disk tier, as nginx's come
        from its cache's files.
        """
        kind = "disk" if disk else "tls" if tls else "plain"
        name = f"{label}, {'from disk' if disk else 'TLS 1.3' if tls else 'plain'}"
        items = load.objects(size)
        place = self.folder / f"hits-{size}-{kind}"
        root = place / "objects"
        load.write_objects(root, size)
        with Origin(place / "origin", root, self.cores) as origin:
            with contextlib.ExitStack() as running:
                core, parts = self.cores.server, ["events", "limits"] + ["tls"] * tls + ["disk"] * disk + self.beside
                memory = size + MEMORY_BESIDE
                segue = running.enter_context(self.segue.start(core, place / "segue", origin.port, parts, memory))
                sides = [(segue, self.segue.urls)]
                for form in NGINX_FORMS:
                    nginx = start_nginx_edge(core, place / form, origin.port, self.certificate if tls else None, form)
                    sides.append((running.enter_context(nginx), load.NginxUrls()))
                targets = {server.name: urls.sign(items) for server, urls in sides}
                negotiated = {}
                for server, urls in sides:
                    mine = targets[server.name]
                    negotiated[server.name] = load.check_bytes(server.name, server.port, tls, items, mine, self.headers)
                    load.check_refusals(server.name, server.port, tls, items[0], urls.forged(mine[0]))
                    (place / f"{server.name}.targets").write_text("\n".join(mine) + "\n")
                    self.run(server, place, WARM_SECONDS, size)
                say(f"hits, {name}: bytes and refusals are right on all sides; {rounds} rounds of {self.seconds} s runs")
                if disk:
                    self.settle(segue, targets["segue"])
                filled = origin.requests()
                taken = []
                for number in range(rounds):
                    first = number % len(sides)
                    order = [server for server, _ in sides[first:] + sides[:first]]
                    one = {server.name: self.run(server, place, self.seconds, size) for server in order}
                    say(f"hits, {name}: round {number + 1}/{rounds}, CPU per request: "
                        + ", ".join(f"{server.name} {one[server.name]['cpu_us']:.1f} us" for server, _ in sides))
                    taken.append(one | {"first": order[0].name})
                if origin.requests() != filled:
                    raise Failure(f"{name}: {origin.requests() - filled} requests reached the origin: these were not all hits")
                for server, _ in sides:
                    load.check_bytes(server.name, server.port, tls, items, targets[server.name], self.headers)
                facts = self.facts(segue, len(items))
        return {"size": label, "disk": disk, "tls": tls, "negotiated": negotiated, "facts": facts, "rounds": taken,
                "summary": summarise(taken)}

    def settle(self, segue: Server, targets: list[str]) -> None:
        """Waits until what was filled is on the disk, and proves that hits come from there."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            states = load.cache_states(segue.port, targets)
            if sum("disk" in state for state in states) >= DISK_SHARE * len(states):
                return
            time.sleep(0.5)
        raise Failure(f"hits do not come from the disk tier: {sorted(set(states))}")

    def run(self, server: Server, place: pathlib.Path, seconds: int, size: int) -> dict:
        """One run of the load against one server."""
        client = resource.getrusage(resource.RUSAGE_CHILDREN)
        before, busy, began = cpu_us(server), busy_us(self.cores.server), time.monotonic()
        result = load.wrk(server.name, server.port, server.tls, place / f"{server.name}.targets", self.script,
                          self.cores.load, seconds, self.connections)
        after, busy, wall = cpu_us(server), busy_us(self.cores.server) - busy, (time.monotonic() - began) * 1e6
        client_after = resource.getrusage(resource.RUSAGE_CHILDREN)
        client_us = (client_after.ru_utime + client_after.ru_stime - client.ru_utime - client.ru_stime) * 1e6
        if result["bytes"] < result["requests"] * size:
            raise Failure(f"{server.name} sent {result['bytes']} bytes for {result['requests']} requests of {size}")
        user = sum(after[pid][0] - before[pid][0] for pid in before.keys() & after.keys())
        system = sum(after[pid][1] - before[pid][1] for pid in before.keys() & after.keys())
        requests = result["requests"]
        return result | {
            "cpu_us": (user + system) / requests,
            "user_us": user / requests,
            "system_us": system / requests,
            "client_us": client_us / requests,
            "both_ends_us": (user + system + client_us) / requests,
            "per_second": requests / result["seconds"],
            "core_share": (user + system) / wall,
            "strangers": max(0.0, (busy - user - system) / wall),
        }

    def facts(self, segue, sessions: int) -> dict:
        """Whether facts were written all the while. A full log would make them cheaper than they are."""
        if "events" not in self.segue.parts:
            return {"on": False}
        overflow = {name: value for name, value in segue.metrics().items() if name.startswith("segue_fact_overflow_total") and value}
        seen = segue.sessions_in_facts(sessions)
        if seen < sessions:
            say(f"FACTS: the log names {seen} of {sessions} sessions; the cost of facts is not in these numbers")
        if overflow:
            say(f"FACTS: not all were kept: {overflow}")
        return {"on": seen == sessions, "sessions_seen": seen, "overflow": overflow}


def summarise(rounds: list[dict]) -> dict:
    """Medians with intervals: of the ratios within rounds first, then of each side alone.

    The peer is the form of nginx with the lower median of CPU time in this very series, which favours nginx.
    """
    def median_cpu(form):
        return interval([one[form]["cpu_us"] for one in rounds])["median"]

    peer = min(NGINX_FORMS, key=median_cpu)
    names = ("segue", *NGINX_FORMS)

    def ratio(key):
        return interval([one["segue"][key] / one[peer][key] for one in rounds])

    def each(key):
        return {name: interval([one[name][key] for one in rounds]) for name in names}

    strangers = [one[name]["strangers"] for one in rounds for name in names]
    return {
        "peer": peer,
        "cpu_ratio": ratio("cpu_us"),
        "both_ends_ratio": ratio("both_ends_us"),
        "throughput_ratio": ratio("per_second"),
        **{key: each(key) for key in ("cpu_us", "client_us", "per_second", "core_share", "p99_us")},
        "disturbed": sum(share > STRANGERS for share in strangers),
        "strangers_most": max(strangers),
    }
