#!/usr/bin/env python3
"""Segue's edge beside a tuned nginx (the better of two forms): CPU per signed hit, cold fill for a crowd, memory per idle connection.

  plain  hits of 1 KB, 32 KB and 200 KB in interleaved rounds: CPU time per request and throughput
  tls    the same over TLS 1.3
  disk   hits of 32 KB and 200 KB from Segue's disk tier, its memory being too small for them
  fill   1,000 clients on one cold 200 KB segment behind a slow origin: GETs at the origin, first bytes
  idle   memory that each server holds for a connection that was served once and stays
  policy what the reference policy costs a hit of 1 KB, on against off (it must be built: make policies)
  facts  what a fact costs, and hits with the sink of the facts away beside hits without one
  tally  facts a second that the control plane counts

Everything runs on loopback with processes and a folder of its own, which are gone at the end, however it ends. It
needs two cores, and wrk, nginx, openssl and taskset on the PATH (Debian: wrk nginx-extras openssl util-linux); root
is not needed. The full form takes about 14 minutes, the quick form about 5. Progress goes to standard error, the
path of the JSON with every raw number to standard output.

The page docs/performance.md and its plot are written when a full form has measured all parts, or where --docs names
a folder. Exit status: 0 measured; 1 something was wrong, so that the numbers would not be true; 2 usage.
Whether a target is met does not change the status: the page says so.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# The source tree stays as it was found.
sys.dont_write_bytecode = True

import load
import policyfiles
import report
from facts import Facts
from fill import Fill
from idle import Idle
from measure import Hits
from policy import Policy
from processes import Cores, Failure, raise_file_limit, say
from servers import Certificate, Segue
from tally import Tally

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ("plain", "tls", "disk", "fill", "idle", "policy", "facts", "tally")
#: Sizes of which hits from disk are measured: smaller ones are in memory in life.
DISK_SIZES = ("32 KB", "200 KB")
NEEDS = ("wrk", "nginx", "openssl", "taskset")
#: Open files that the crowd and the idle connections need.
FILES = 4096


class Form:
    """How much is measured. `bound` ends a benchmark that hangs, in seconds."""

    def __init__(self, quick: bool):
        self.rounds = 3 if quick else 7
        self.seconds = 2 if quick else 3
        self.fills = 2 if quick else 5
        self.bound = 600 if quick else 1800


def parts(text: str) -> list[str]:
    """Parts by commas, in the order in which they are measured."""
    wanted = set(text.split(","))
    if wanted - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(wanted - set(PARTS)))}: there is {', '.join(PARTS)}")
    return [part for part in PARTS if part in wanted]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segue", type=pathlib.Path, default=ROOT / "target/release/segue", metavar="FILE",
                        help="the command to measure, a release build (default: target/release/segue)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 s runs and 2 fills; enough to see a large change")
    parser.add_argument("--only", type=parts, metavar="PARTS", help=f"measure these parts alone, by commas: {', '.join(PARTS)}")
    parser.add_argument("--json", type=pathlib.Path, metavar="OUT", default=ROOT / "target/bench/performance.json",
                        help="where the raw numbers go (default: target/bench/performance.json)")
    parser.add_argument("--cost", type=pathlib.Path, default=ROOT / "target/release/examples/cost", metavar="FILE",
                        help="the example of segue-events that measures a fact (default: target/release/examples/cost)")
    parser.add_argument("--tally", type=pathlib.Path, default=ROOT / "target/release/examples/tally", metavar="FILE",
                        help="the example of segue-control-plane that counts (default: target/release/examples/tally)")
    parser.add_argument("--policies", type=pathlib.Path, default=ROOT / "target/policies", metavar="DIR",
                        help="the folder with the built policies (default: target/policies)")
    parser.add_argument("--with-policy", action="store_true",
                        help="measure the hits with the reference policy on, which nginx has nothing like")
    parser.add_argument("--docs", type=pathlib.Path, metavar="DIR",
                        help="write performance.md and performance.svg there (a full form of all parts: docs/)")
    given = parser.parse_args()
    if given.docs is None and not given.quick and not given.only and not given.with_policy:
        given.docs = ROOT / "docs"
    return given


def check_needs(segue: pathlib.Path) -> None:
    missing = [name for name in NEEDS if not shutil.which(name)]
    if missing:
        raise Failure(f"not on the PATH: {', '.join(missing)}; on Debian: apt-get install wrk nginx-extras openssl util-linux")
    if not os.access(segue, os.X_OK):
        raise Failure(f"there is no command at {segue}; build it with `cargo build --release`, or name it with --segue")
    if raise_file_limit() < FILES:
        raise Failure(f"this process may open {raise_file_limit()} files, {FILES} are needed; raise `ulimit -Hn`")


def measure(given: argparse.Namespace, folder: pathlib.Path) -> dict:
    form = Form(given.quick)
    wanted = given.only or list(PARTS)
    cores = Cores.choose()
    # The benchmark itself, and what it starts without another wish, stays off the server's core.
    os.sched_setaffinity(0, {cores.load})
    result = {"version": 1, "quick": given.quick, "parts": wanted, "machine": report.machine(given.segue, cores)}
    certificate = Certificate(folder)
    segue = Segue(given.segue.resolve(), folder / "probe", certificate, given.policies.resolve() / "reference.wasm")
    result["edge"] = {"origin_kind": segue.kind, "parts": segue.parts, "refused": segue.refused}
    plain = hits = Hits(segue, cores, folder, certificate, form.seconds)
    if given.with_policy:
        if "policy" not in segue.parts:
            raise Failure(f"--with-policy: {segue.refused['policy']}")
        hits = plain.showing(policyfiles.HEADERS, policyfiles.script(load.WRK_SCRIPT), ("policy",))
        segue.urls = segue.urls.with_ctx(policyfiles.CTX)
    result["with_policy"] = given.with_policy
    result["hits"] = []
    for part, tls in (("plain", False), ("tls", True)):
        if part in wanted and (not tls or "tls" in segue.parts):
            result["hits"] += [hits.series(label, size, tls, form.rounds) for label, size in load.SIZES.items()]
    if "disk" in wanted and "disk" in segue.parts:
        result["disk"] = [hits.series(label, load.SIZES[label], False, form.rounds, disk=True) for label in DISK_SIZES]
    if "fill" in wanted:
        result["fill"] = Fill(segue, cores, folder).measure(form.fills)
    if "idle" in wanted:
        result["idle"] = Idle(segue, cores, folder, certificate).measure()
    if "facts" in wanted:
        result["facts"] = Facts(segue, plain, cores, folder, given.cost).measure(form.rounds)
    if "tally" in wanted:
        result["tally"] = Tally(cores, given.tally).measure(form.rounds, given.quick)
    if "policy" in wanted and "policy" in segue.parts:
        result["policy"] = Policy(segue, plain, cores, folder).measure(form.rounds)
    result["machine"]["load_average_after"] = os.getloadavg()
    return result


def bounded(form: Form) -> None:
    """Ctrl-C, SIGTERM and the end of the time all leave through the same door, which ends what was started."""
    def leave(number, _frame):
        if number == signal.SIGALRM:
            raise Failure(f"not done within {form.bound} s")
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGALRM, leave)
    signal.alarm(form.bound)


def main() -> int:
    given = arguments()
    bounded(Form(given.quick))
    began = time.monotonic()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="segue-bench-"))
    try:
        check_needs(given.segue)
        result = measure(given, folder)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n")
        if given.docs:
            report.write_page(result, given.docs)
            say(f"wrote {given.docs / 'performance.md'}")
        say(f"done in {time.monotonic() - began:.0f} s")
        print(given.json)
        return 0
    except (Failure, OSError, http.client.HTTPException, subprocess.TimeoutExpired) as failure:
        say(f"FAILED: {failure or type(failure).__name__}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
