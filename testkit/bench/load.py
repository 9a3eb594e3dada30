"""What is asked for, how it is signed, and the load generator that asks.

The objects are laid out as the transcoder lays them out, so that the edge treats them as what they are: segments of
a rendition, in a version folder, beside their media playlist. The bytes of each follow from its path alone, so
that every part of the benchmark knows the truth without asking another.
"""

import base64
import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import ssl
import subprocess
import time

from processes import Failure

KIB = 1024
SIZES = {"1 KB": 1 * KIB, "32 KB": 32 * KIB, "200 KB": 200 * KIB}
TRACKS = 5
SEGMENTS = 10
#: Distinct objects of a size, each asked for with a ticket of its own session.
OBJECTS = TRACKS * SEGMENTS
VERSION = "00c0ffee00c0ffee-1"
CONNECTIONS = 64
KEY_ID = "k1"
#: The secret of a benchmark on loopback; it guards nothing.
SECRET = "a-benchmark-on-loopback-guards-nothing-at-all"
TICKET_TTL = 6 * 3600


def body(path: str, size: int) -> bytes:
    """The bytes of an object: an expansion of its path."""
    return hashlib.shake_128(path.encode()).digest(size)


@dataclasses.dataclass(frozen=True)
class Object:
    path: str
    size: int

    @property
    def bytes(self) -> bytes:
        return body(self.path, self.size)

    @property
    def track(self) -> str:
        return self.path.split("/")[2]


def rendition(track: str) -> str:
    return f"/hls/{track}/{VERSION}/a128"


def objects(size: int) -> list[Object]:
    """The objects of one size: some tracks with some segments each."""
    tracks = [f"bench{size // KIB:04d}x{number:02d}" for number in range(TRACKS)]
    return [Object(f"{rendition(t)}/seg-{n:05d}.m4s", size) for t in tracks for n in range(SEGMENTS)]


def playlist(segments: int) -> str:
    """The media playlist that stands beside the segments, from which an edge reads where in the track each lies."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-TARGETDURATION:6", "#EXT-X-PLAYLIST-TYPE:VOD",
             '#EXT-X-MAP:URI="init.mp4"']
    for number in range(segments):
        lines += ["#EXTINF:6.000,", f"seg-{number:05d}.m4s"]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def write_objects(root: pathlib.Path, size: int) -> None:
    """Puts the objects of one size under an origin's root."""
    for item in objects(size):
        file = root / item.path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(item.bytes)
        (file.parent / "index.m3u8").write_text(playlist(SEGMENTS))
        (file.parent / "init.mp4").write_bytes(body(str(file.parent), 700))


def segue_env() -> dict:
    """This environment without SEGUE_… variables, which would override the configuration, and with the key."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
    return env | {"SEGUE_KEY_K1": SECRET}


def mint(segue: pathlib.Path, track: str, sid: str, limit_class: str | None, ctx: str | None = None) -> str:
    """A ticket for one session and one track, from the command itself."""
    command = [segue, "ticket", "mint", "--key", KEY_ID, "--path", f"/hls/{track}/", "--ttl", str(TICKET_TTL),
               "--sid", sid, "--sub", f"listener-{sid}", "--secret", "env:SEGUE_KEY_K1", "--json"]
    command += ["--lim", limit_class] if limit_class else []
    command += ["--ctx", ctx] if ctx else []
    done = subprocess.run(command, env=segue_env(), capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise Failure(f"`segue ticket mint` failed: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout)["ticket"]


class SegueUrls:
    """Request targets with a ticket in the path; one session for each object."""

    def __init__(self, segue: pathlib.Path):
        self.segue = segue
        self.limit_class: str | None = None
        self.ctx: str | None = None

    def with_ctx(self, ctx: str) -> "SegueUrls":
        """The same, whose tickets say something to policies."""
        urls = SegueUrls(self.segue)
        urls.limit_class, urls.ctx = self.limit_class, ctx
        return urls

    def sign(self, items: list[Object]) -> list[str]:
        tickets = [mint(self.segue, item.track, session(number), self.limit_class, self.ctx) for number, item in enumerate(items)]
        return [f"/p/{ticket}{item.path}" for ticket, item in zip(tickets, items, strict=True)]

    def forged(self, signed: str) -> str:
        ticket, rest = signed.removeprefix("/p/").split("/", 1)
        claims, _, signature = ticket.rpartition(".")
        return f"/p/{claims}.{flip(signature)}/{rest}"


class NginxUrls:
    """Request targets for secure_link: MD5 over expiry, path and secret, in the query."""

    def sign(self, items: list[Object]) -> list[str]:
        expires = int(time.time()) + TICKET_TTL
        return [f"{item.path}?md5={secure_link(f'{expires}{item.path} {SECRET}')}&expires={expires}" for item in items]

    def forged(self, signed: str) -> str:
        before, rest = signed.split("?md5=", 1)
        return f"{before}?md5={flip(rest)}"


def session(number: int) -> str:
    return f"bench-{number:03d}"


def flip(signature: str) -> str:
    """The same text with its first character changed."""
    return ("A" if signature[0] != "A" else "B") + signature[1:]


def secure_link(signed: str) -> str:
    """MD5 in base64url without padding, as ngx_http_secure_link_module wants it."""
    digest = hashlib.md5(signed.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def connection(port: int, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    return http.client.HTTPSConnection("localhost", port, timeout=20, context=client_tls())


def client_tls() -> ssl.SSLContext:
    """TLS 1.3 alone, towards the benchmark's own self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def check_bytes(name: str, port: int, tls: bool, items: list[Object], targets: list[str], headers: dict | None = None) -> dict:
    """Asks for every object once and compares SHA-256 with the truth. Answers what the connection negotiated."""
    client = connection(port, tls)
    try:
        for item, target in zip(items, targets, strict=True):
            client.request("GET", target, headers=headers or {})
            answer = client.getresponse()
            got = answer.read()
            if answer.status != 200:
                raise Failure(f"{name} answered {answer.status} for {item.path}: {got[:200]!r}")
            if hashlib.sha256(got).digest() != hashlib.sha256(item.bytes).digest():
                raise Failure(f"{name} answered {len(got)} wrong bytes for {item.path}")
        return {"cipher": client.sock.cipher()[0], "tls": client.sock.version()} if tls else {}
    finally:
        client.close()


def cache_states(port: int, targets: list[str]) -> list[str]:
    """What `Cache-Status` says of each target, asked for once."""
    client = connection(port, False)
    try:
        states = []
        for target in targets:
            client.request("GET", target)
            answer = client.getresponse()
            answer.read()
            states.append(answer.getheader("Cache-Status", ""))
        return states
    finally:
        client.close()


def check_refusals(name: str, port: int, tls: bool, item: Object, forged: str) -> None:
    """A forged signature and a missing one must be refused: a server that checks nothing is no peer."""
    for target in (forged, item.path):
        client = connection(port, tls)
        try:
            client.request("GET", target)
            status = client.getresponse().status
        finally:
            client.close()
        if status not in (401, 403):
            raise Failure(f"{name} answered {status} where the signature was {'forged' if target == forged else 'missing'}")


# Requests are built once, before the load begins; each connection's next one is the next of the list.
WRK_SCRIPT = """
local requests, count, at = {}, 0, 0
function init(args)
  for target in io.lines(args[1]) do
    count = count + 1
    requests[count] = wrk.format("GET", target)
  end
end
function request()
  at = at % count + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"seconds":%.6f,"bytes":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


def wrk(name: str, port: int, tls: bool, targets: pathlib.Path, script: pathlib.Path, core: int, seconds: int,
        connections: int = CONNECTIONS) -> dict:
    """One run of the load generator: one thread, keep-alive connections, the targets in turn."""
    url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    command = ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s",
               "-s", script, url, "--", targets]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds + 30, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        raise Failure(f"wrk against {name} failed with status {done.returncode}: {done.stderr.strip()} {done.stdout[-400:]}")
    result = json.loads(lines[-1].removeprefix("RESULT "))
    if result["errors"] or not result["requests"]:
        raise Failure(f"{name} did not answer everything well under load: {result}")
    return result
