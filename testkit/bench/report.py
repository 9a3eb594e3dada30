"""What was measured, as JSON with every raw number and as a page with the ratios first."""

import datetime
import hashlib
import os
import pathlib
import platform
import subprocess

import facts
import figures
import fill
import idle
import load
import plot
import policy
import tally

#: Largest ratio of CPU time per hit that is good enough, by transport and size.
TARGETS = {
    (False, "1 KB"): 0.80, (False, "32 KB"): 1.00, (False, "200 KB"): 1.00,
    (True, "1 KB"): 0.65, (True, "32 KB"): 0.65, (True, "200 KB"): 0.65,
}
FIRST_BYTE_TARGETS = {"median_ms": 20.0, "p99_ms": 60.0}
#: The page on which `make limits-proof` leaves its figures.
LIMITS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "limits.md"


def machine(segue: pathlib.Path, cores) -> dict:
    """What the numbers depend on besides the servers."""
    def first_line(*command) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except OSError as error:
            return f"unknown ({error})"
        return ((done.stdout.strip() or done.stderr.strip()).splitlines() or ["unknown"])[0]

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())
    return {
        "taken": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "server_core": cores.server,
        "load_core": cores.load,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load_average_before": os.getloadavg(),
        "nginx": first_line("nginx", "-v"),
        "wrk": first_line("wrk", "-v"),
        "openssl": first_line("openssl", "version"),
        "segue": first_line(str(segue), "--version"),
        "segue_sha256": hashlib.sha256(segue.read_bytes()).hexdigest(),
        "python": platform.python_version(),
    }


def span(value: dict, form: str = ".2f") -> str:
    return f"{value['median']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def rate(summary: dict, side: str) -> str:
    return f"{summary['per_second'][side]['median']:,.0f}/s ({summary['core_share'][side]['median']:.0%})"


def hits_table(series: list[dict]) -> str:
    rows = ["| | size | CPU per hit, Segue / best nginx | target | | both ends, Segue / nginx | Segue | nginx `sendfile` | nginx copy |",
            "|---|---|---|---|---|---|---|---|---|"]
    for one in series:
        s, target = one["summary"], TARGETS[one["tls"], one["size"]]
        cells = {name: f"{s['cpu_us'][name]['median']:.1f} µs" for name in s["cpu_us"]}
        cells[s["peer"]] = f"**{cells[s['peer']]}**"
        rows.append(
            f"| {'TLS 1.3' if one['tls'] else 'plain'} | {one['size']} | {span(s['cpu_ratio'])} | at most {target:.2f} "
            f"| {verdict(s['cpu_ratio']['median'] <= target)} | {span(s['both_ends_ratio'])} "
            f"| {cells['segue']} | {cells['nginx-sendfile']} | {cells['nginx-copy']} |")
    return "\n".join(rows)


def disk_table(series: list[dict]) -> str:
    rows = ["| size | CPU per hit, Segue / best nginx | Segue | nginx `sendfile` | nginx copy | throughput, Segue / best nginx |",
            "|---|---|---|---|---|---|"]
    for one in series:
        s = one["summary"]
        cells = {name: f"{s['cpu_us'][name]['median']:.1f} µs" for name in s["cpu_us"]}
        cells[s["peer"]] = f"**{cells[s['peer']]}**"
        rows.append(f"| {one['size']} | {span(s['cpu_ratio'])} | {cells['segue']} | {cells['nginx-sendfile']} | {cells['nginx-copy']} "
                    f"| {span(s['throughput_ratio'])} |")
    return "\n".join(rows)


def rates_table(series: list[dict]) -> str:
    rows = ["| | size | throughput, Segue / best nginx | Segue | nginx |", "|---|---|---|---|---|"]
    for one in series:
        s = one["summary"]
        rows.append(f"| {'TLS 1.3' if one['tls'] else 'plain'} | {one['size']} | {span(s['throughput_ratio'])} "
                    f"| {rate(s, 'segue')} | {rate(s, s['peer'])} |")
    return "\n".join(rows)


def fill_table(result: dict) -> str:
    rows = ["| | Segue | target | | nginx (`proxy_cache_lock`) |", "|---|---|---|---|---|"]
    segue, nginx = result["summary"]["segue"], result["summary"]["nginx"]
    n = result["clients"]
    rows.append(f"| GETs at the origin, most of any round | {segue['gets_most']} | 1 | {verdict(segue['gets_most'] == 1)} | {nginx['gets_most']} |")
    rows.append(f"| clients with every byte right, least of any round | {segue['whole_least']} of {n} | {n} "
                f"| {verdict(segue['whole_least'] == n)} | {nginx['whole_least']} of {n} |")
    for key, words in (("median_ms", "first byte after the origin's, median client"),
                       ("p99_ms", "first byte after the origin's, 99th percentile")):
        most = FIRST_BYTE_TARGETS[key]
        rows.append(f"| {words} | {span(segue[key], '.1f')} ms | at most {most:.0f} ms | {verdict(segue[key]['median'] <= most)} "
                    f"| {span(nginx[key], '.1f')} ms |")
    rows.append(f"| last byte after the origin's, 99th percentile | {span(segue['end_p99_ms'], '.1f')} ms | | | {span(nginx['end_p99_ms'], '.1f')} ms |")
    return "\n".join(rows)


def idle_table(results: list[dict]) -> str:
    rows = ["| | Segue / nginx | Segue | nginx |", "|---|---|---|---|"]
    for one in results:
        mine, theirs = one["segue"]["bytes_each"], one["nginx"]["bytes_each"]
        ratio = f"{mine / theirs:.2f}" if theirs > 0 else "-"
        rows.append(f"| {'TLS 1.3' if one['tls'] else 'plain'} | {ratio} | {mine / 1024:.1f} KiB | {theirs / 1024:.1f} KiB |")
    return "\n".join(rows)


def not_measured(result: dict) -> list[str]:
    lines = []
    refused = result["edge"]["refused"]
    if refused.get("tls"):
        lines.append("TLS 1.3: this build of the edge takes no `[tls]`. nginx's numbers alone would compare nothing.")
    if refused.get("limits"):
        lines.append("limits on Segue's side: this build of the edge takes no `[limits]`. nginx does count its `limit_req`, "
                     "so the comparison is too kind to Segue by what a limit costs.")
    if refused.get("events"):
        lines.append("facts on Segue's side: this build of the edge takes no `[events] dir`. nginx does write its log.")
    if not result.get("with_policy"):
        lines.append("a policy beside nginx, which has nothing like it: what one costs a hit is measured by itself.")
    if refused.get("policy"):
        lines.append("what a policy costs: the reference policy was not built, or this build of the edge takes no `[policies]`.")
    if refused.get("disk"):
        lines.append("hits from Segue's disk tier: this build of the edge takes no `[cache] disk`.")
    lines.append("a disk that must turn or seek: what both serve from disk is in the kernel's page cache.")
    lines.append("nginx with kernel TLS, which gives its `sendfile` back under TLS: it needs a kernel and an OpenSSL built for it.")
    return lines


def warnings(result: dict) -> list[str]:
    lines = []
    if result["quick"]:
        lines.append("These are numbers of the quick form: few and short runs. They show that the benchmark works and where things stand; "
                     "`make bench` takes the real ones.")
    series = (result.get("hits") or []) + (result.get("disk") or [])
    disturbed = sum(one["summary"]["disturbed"] for one in series)
    if disturbed:
        runs = sum(3 * len(one["rounds"]) for one in series)
        most = max(one["summary"]["strangers_most"] for one in series)
        lines.append(f"In {disturbed} of {runs} runs other processes took more than a tenth of the server's core (at most {most:.0%}): "
                     "throughputs say little, CPU times suffer less, ratios least.")
    if not result["edge"]["refused"].get("events"):
        short = [f"{'TLS 1.3' if one['tls'] else 'plain'} {one['size']}" for one in series
                 if not one["facts"]["on"] or one["facts"].get("overflow")]
        if short:
            lines.append(f"Not every fact was kept ({', '.join(short)}): the cost of facts is not whole there. The JSON has the counts.")
    return lines


def limits() -> list[str]:
    """What the proof of the limits found when it ran last: it takes eight minutes of its own, so the page carries it over."""
    _, told, _ = figures.parted(LIMITS, "make limits-proof")
    return ["## Limits", "", "One hot track on three edges with a real redis-server, as `make limits-proof` found it "
            "([what is measured](limits.md)).", "", "![Admitted a second by three edges, as a share of the limit](limits.svg)", "", told, ""]


def page(result: dict) -> str:
    host = result["machine"]
    hits, cold, held = result.get("hits"), result.get("fill"), result.get("idle")
    rounds = len(hits[0]["rounds"]) if hits else 0
    coverage = hits[0]["summary"]["cpu_ratio"]["coverage"] if hits else 0
    ciphers = next((one["negotiated"] for one in hits or [] if one["tls"]), None)
    parts = ["# Performance", "",
             "How much CPU time Segue's edge needs for a signed cache hit beside a tuned nginx, how a cold object reaches a crowd, and what an "
             "idle connection costs. `make bench` takes all of it anew on your machine and writes this page; "
             "ratios come first, for they travel from machine to machine better than microseconds do. "
             "The transcoder has [a page of its own](performance-transcode.md).", ""]
    parts += [line for words in warnings(result) for line in (f"> {words}", ">")][:-1] + [""]
    if hits:
        parts += ["## Cache hits", "", "![CPU time per signed cache hit, Segue relative to nginx](performance.svg)", "",
                  hits_table(hits), "",
                  f"Medians of {rounds} interleaved rounds, with [low, high]: the interval holds the true median with "
                  f"{coverage:.1%} confidence. CPU is user and system time of the server's processes, all threads, over completed requests. "
                  "nginx runs in two forms and the one with the lower CPU time, in bold, is the peer. `both ends` adds the load generator's own "
                  "CPU time: on loopback a part of a sender's work can fall to the receiver, and the sum shows it.", "", rates_table(hits), "",
                  "Beside each throughput stands the share of its core that the server used: below 100 % something else was the limit "
                  "(the load generator, or another process), and the throughput is not the server's most.", ""]
    if result.get("disk"):
        parts += ["## Hits from disk", "",
                  "Segue's memory holds one object at a time, so that its hits come from its disk tier, checksums included; nginx's come from its cache's "
                  "files, as always. The files of both are in the page cache.", "", disk_table(result["disk"]), ""]
    if cold:
        parts += ["## A cold object and a crowd", "",
                  f"{cold['clients']:,} clients ask at once for one segment of {cold['size'] // load.KIB} KB that nobody asked for before, behind an "
                  f"origin that takes {cold['first_byte_ms']} ms to its first byte and then gives {cold['rate'] // load.KIB} KB a second. "
                  f"{len(cold['rounds']['segue'])} rounds, each on a new object; median of the rounds, [low, high].", "", fill_table(cold), ""]
    if held:
        parts += ["## Idle connections", "",
                  f"Memory for a connection that was served once and stays open: the slope between {idle.FEW:,} and {idle.MANY:,} connections, "
                  "anonymous memory of all the server's processes, without the kernel's socket buffers. "
                  "nginx's table of connections is there from its start and so not in the slope.", "", idle_table(held), ""]
    if result.get("policy"):
        parts += ["## A policy", "", policy.text(result["policy"]), ""]
    if result.get("facts"):
        parts += ["## Facts", "", facts.text(result["facts"]), "", facts.table(result["facts"]), ""]
    if result.get("tally"):
        parts += ["## The tally", "", tally.text(result["tally"]), ""]
    parts += limits()
    parts += ["## Not measured", "", *[f"- {line}" for line in not_measured(result)], ""]
    parts += ["## How it is measured", "", method(), "", "## The machine", "",
              f"{host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / 2**30:.0f} GiB, Linux {host['kernel']}; taken {host['taken']}, load average "
              f"{host['load_average_before'][0]:.1f} before. {host['segue']}; {host['nginx']}; {host['openssl']}; {host['wrk']}."
              + (f" Ciphers: Segue {ciphers['segue']['cipher']}, nginx {ciphers['nginx-sendfile']['cipher']}." if ciphers else ""), ""]
    return "\n".join(parts)


def method() -> str:
    return f"""- **The same work for both.** Segue and nginx stand in front of one origin (static files over HTTP) and cache what it says may be cached.
  Segue verifies an HS256 ticket in the path and writes a fact for every answer to its crash-safe local log; nginx checks `secure_link` (MD5 in
  the query), counts a `limit_req` and writes a buffered access log with the fields of a fact.
- **nginx is tuned**, in two forms: `sendfile`, and a copy through one 256 KB buffer with a 1 MB socket buffer. Neither wins at every size, so both run in
  every round and Segue is held against the better. Both have `open_file_cache`, `tcp_nopush`, buffered log, keep-alive to the origin, one worker, no limit on requests per
  connection, no temporary copies. All its files are in the page cache. The configuration stands in `testkit/bench/servers.py`;
  a better one is welcome.
- **{load.OBJECTS} objects of each size**, laid out as the transcoder does, each with a ticket of another session, asked for in turn over
  {load.CONNECTIONS} keep-alive connections by `wrk` with one thread. Every ticket has been seen before: as in life, where a session asks hundreds of
  times, Segue finds it among the verified ones. nginx computes its MD5 each time.
- **One core for the server, another for everything else.** CPU time comes from `/proc/<pid>/stat` of the server's own processes, before and after
  each run, over the requests that `wrk` saw completed. The {load.CONNECTIONS} connections' set-up is in it, handshakes included. Loopback has no network card:
  who pays for a packet, sender or receiver, depends on who was running, hence the column for both ends.
- **Interleaved rounds.** All servers stand all the while; each round is one run against each, begun by another one each time, and the ratio is taken
  within the round: what disturbs the machine disturbs all. The JSON names the share of the core that other processes took in every run.
- **No wrong hits.** Before and after each series every object's SHA-256 is compared with the truth on all sides; forged and missing signatures must be
  refused; an error or a short answer under load, or a single request that reaches the origin, ends the benchmark.
- **TLS** is 1.3 with an ECDSA P-256 certificate on all sides.
- **The crowd**: connections stand before the first request; first bytes are body bytes, timed in the client against the origin's first write, on one
  clock. {fill.CLIENTS:,} clients are one thread over epoll, and its reading, some microseconds each, is in the numbers of both."""


def write_page(result: dict, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "performance.md").write_text(page(result))
    if result.get("hits"):
        rows = [{"name": f"{one['size']}, {'TLS 1.3' if one['tls'] else 'plain'}", "ratio": one["summary"]["cpu_ratio"],
                 "target": TARGETS[one["tls"], one["size"]]} for one in result["hits"]]
        rounds = len(result["hits"][0]["rounds"])
        subtitle = (f"one pinned core, {load.CONNECTIONS} keep-alive connections, {rounds} interleaved rounds; "
                    f"{result['machine']['cpu']}, {result['machine']['taken'][:10]}")
        (folder / "performance.svg").write_text(plot.svg(rows, subtitle))
