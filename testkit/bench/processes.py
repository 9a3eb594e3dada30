"""Processes that the benchmark starts, pins, watches and ends.

Invariants: every process started here is ended here, by its own id; if the benchmark itself dies, the kernel ends
them (parent-death signal); nothing that was not started here is ever signalled. Every wait has a bound.

On failure: `Failure` with the tail of the process's log.
"""

import ctypes
import dataclasses
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
#: How long a server may take until it answers, and until it has ended, in seconds.
READY_WITHIN = 15.0
ENDS_WITHIN = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """The benchmark cannot go on, or what it measured would not be true."""


def say(text: str) -> None:
    """One line of progress, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Cores:
    """The one core that servers run on, and the one for everything else."""

    server: int
    load: int

    @staticmethod
    def choose() -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise Failure("two cores are needed (one for the server, one for the load); this process may use one")
        return Cores(server=usable[0], load=usable[-1])


def raise_file_limit() -> int:
    """Lifts the number of open files as far as is allowed, for thousands of connections. Answers the new limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A child on one core, its output in a file."""

    def __init__(self, name: str, command: list, core: int, log: pathlib.Path, env: dict | None = None):
        def before_exec():
            # The kernel ends the child with its parent, and the child never leaves its core.
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            os.sched_setaffinity(0, {core})

        self.name = name
        self.log = log
        with open(log, "wb") as output:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                preexec_fn=before_exec,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def tail(self, lines: int = 12) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def wait_for_port(self, port: int) -> None:
        """Returns once something accepts connections there."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise Failure(f"{self.name} ended with status {self.child.returncode}:\n{self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Failure(f"{self.name} did not listen on port {port} within {READY_WITHIN:.0f} s:\n{self.tail()}")

    def stop(self) -> None:
        if self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            say(f"{self.name} did not end within {ENDS_WITHIN:.0f} s and is killed")
            for pid in reversed(family(self.pid)):
                os.kill(pid, signal.SIGKILL)
            self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def family(pid: int) -> list[int]:
    """A process and its direct children: nginx keeps its workers there."""
    children = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = stat_fields(int(entry))
            if fields and int(fields[1]) == pid:
                children.append(int(entry))
    return [pid, *sorted(children)]


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third on (proc(5)); the second may hold blanks."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
