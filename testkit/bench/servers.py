"""The servers side by side: an origin, nginx as a tuned caching proxy, and Segue's edge.

Both caches stand in front of the same origin and run on the same core. nginx is configured as well as we know how:
what it is given here is what the comparison is worth.
"""

import pathlib
import subprocess
import textwrap

import load
import policyfiles
from processes import Cores, Failure, Process, free_port, say

#: Open connections that each server must be able to hold.
MAX_CONNECTIONS = 16_384
IDLE_SECONDS = 300
#: The limit class that the tickets name, where the edge has limits; high enough never to refuse.
LIMIT_CLASS = "bench"

NGINX_MAIN = """
daemon off;
{user}
pid {dir}/pid;
error_log {dir}/error.log warn;
worker_processes 1;
worker_rlimit_nofile 20000;
events {{ worker_connections {connections}; }}
http {{
    types {{ audio/mp4 m4s mp4; application/vnd.apple.mpegurl m3u8; }}
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server_tokens off;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout {idle}s;
    keepalive_requests 1000000000;
    reset_timedout_connection on;
    open_file_cache max=10000 inactive=300s;
    open_file_cache_valid 300s;
    open_file_cache_errors on;
{send}
{http}
}}
"""

#: Two ways for nginx to send, neither of which is the better one at every size: measured, `sendfile` wins at 32 KB
#: by far and loses at 1 KB and 200 KB to a copy through one buffer that holds the object. Both run, the better one counts.
NGINX_FORMS = {
    "nginx-sendfile": ("    sendfile on;", ""),
    "nginx-copy": ("    sendfile off;\n    output_buffers 1 256k;", " sndbuf=1m"),
}

# `immutable` objects with a lifetime, so that both caches keep them by what the origin says. The log is read back to
# prove that a measured hit never reached the origin; it is not buffered for that reason.
NGINX_ORIGIN = """
    log_format line '$request_method $uri $status';
    access_log {dir}/access.log line;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        add_header Cache-Control "public, max-age=86400, immutable";
        location / {{ root {root}; }}
        location /media/ {{ alias {root}/; }}
    }}
"""

NGINX_EDGE = """
    log_format fact escape=json '{{"ts":"$msec","uri":"$uri","status":$status,"bytes":$body_bytes_sent,'
        '"seconds":$request_time,"cache":"$upstream_cache_status","client":"$remote_addr","agent":"$http_user_agent"}}';
    access_log {dir}/access.log fact buffer=256k flush=1s;
    limit_req_zone $binary_remote_addr zone=per_client:10m rate=1000000r/s;
    proxy_cache_path {dir}/cache levels=1:2 keys_zone=objects:64m max_size=4g inactive=1h use_temp_path=off;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{socket}{ssl};
{tls}
        location /hls/ {{
            secure_link $arg_md5,$arg_expires;
            secure_link_md5 "$secure_link_expires$uri {secret}";
            if ($secure_link = "") {{ return 403; }}
            if ($secure_link = "0") {{ return 403; }}
            limit_req zone=per_client burst=1000000 nodelay;
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache objects;
            proxy_cache_key $uri;
            proxy_cache_valid 200 1h;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 60s;
            proxy_cache_lock_age 60s;
            proxy_cache_use_stale updating error timeout;
        }}
    }}
"""

NGINX_TLS = """
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        ssl_session_cache shared:tls:10m;
        ssl_buffer_size 16k;
"""


class Certificate:
    """An ECDSA P-256 key with a self-signed certificate for localhost."""

    def __init__(self, folder: pathlib.Path):
        self.certificate = folder / "certificate.pem"
        self.key = folder / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                   "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                   "-keyout", self.key, "-out", self.certificate]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=20, check=False)
        if done.returncode != 0:
            raise Failure(f"openssl made no certificate: {done.stderr.strip()}")


class Server(Process):
    """A process that answers on a port."""

    def __init__(self, name: str, command: list, core: int, folder: pathlib.Path, port: int, tls: bool, env=None):
        super().__init__(name, command, core, folder / f"{folder.name}.log", env)
        self.port = port
        self.tls = tls
        self.folder = folder
        try:
            self.wait_for_port(port)
        except BaseException:
            self.stop()
            raise


def start_nginx(name: str, core: int, folder: pathlib.Path, port: int, tls: bool, http: str, send: str) -> Server:
    folder.mkdir(parents=True)
    config = folder / "nginx.conf"
    # A worker keeps the user of whoever starts the benchmark: as root it would else lose its own folder.
    user = "user root;" if folder.owner() == "root" else ""
    config.write_text(NGINX_MAIN.format(user=user, dir=folder, connections=MAX_CONNECTIONS, idle=IDLE_SECONDS, http=http, send=send))
    command = ["nginx", "-e", folder / "error.log", "-p", folder, "-c", config]
    server = Server(name, command, core, folder, port, tls)
    errors = (folder / "error.log").read_text()
    if errors.strip():
        say(f"{name} complains: {errors.strip()[:400]}")
    return server


class Origin:
    """An nginx with static files. It counts what reaches it."""

    def __init__(self, folder: pathlib.Path, root: pathlib.Path, cores: Cores):
        port = free_port()
        # On the load's core: only the fills before a measurement reach it.
        text = NGINX_ORIGIN.format(dir=folder, port=port, root=root)
        self.server = start_nginx("origin", cores.load, folder, port, False, text, NGINX_FORMS["nginx-sendfile"][0])
        self.port = port

    def requests(self) -> int:
        with open(self.server.folder / "access.log", "rb") as log:
            return sum(1 for _ in log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()


def start_nginx_edge(core: int, folder: pathlib.Path, origin: int, certificate: Certificate | None,
                     form: str = "nginx-sendfile") -> Server:
    port = free_port()
    send, socket = NGINX_FORMS[form]
    tls = NGINX_TLS.format(certificate=certificate.certificate, key=certificate.key) if certificate else ""
    http = NGINX_EDGE.format(dir=folder, origin=origin, port=port, secret=load.SECRET, socket=socket,
                             ssl=" ssl" if certificate else "", tls=tls)
    return start_nginx(form, core, folder, port, certificate is not None, http, send)


class Segue:
    """The command under test, and what this build of it can be asked for."""

    #: Parts of the configuration that a build may or may not know, each with a value that turns it on.
    PARTS = {
        "events": '[events]\nkind = "embedded"\ndir = "{dir}/events"\n',
        # The sink is away: nobody listens on that port.
        "away": '[events]\nkind = "fluvio"\nendpoint = "127.0.0.1:9"\ndir = "{dir}/events"\n',
        "tls": '[tls]\ncert = "{certificate}"\nkey = "{key}"\n',
        "limits": f"[limits.{LIMIT_CLASS}]\nrate = 1000000\nburst = 1000000\nper = \"session\"\n",
        # Of the memory tier so little is left that an object is out of it again before it is asked for anew.
        "disk": '[cache]\nmemory = "{memory}B"\nmax_object = "{memory}B"\ndisk = "512MiB"\ndir = "{dir}/cache"\n',
        "policy": '[policies]\ndir = "{dir}/policies"\n[client]\ncountry = "{dir}/policies/country.mmdb"\n',
    }
    #: Bytes of memory for objects beside the disk tier, where nobody says otherwise.
    MEMORY = 1 << 20

    def __init__(self, command: pathlib.Path, folder: pathlib.Path, certificate: Certificate, reference: pathlib.Path):
        self.command = command
        #: The reference policy, built.
        self.reference = reference
        self.certificate = certificate
        self.urls = load.SegueUrls(command)
        folder.mkdir(parents=True)
        self.kind, problem = "http", self.check(folder, "http", [])
        if problem:
            say(f"the edge takes no origin of kind \"http\" ({problem}); kind \"s3\" is used")
            self.kind, problem = "s3", self.check(folder, "s3", [])
        if problem:
            raise Failure(f"{command} refuses the benchmark's smallest configuration: {problem}")
        self.refused = {part: self.check(folder, self.kind, [part]) for part in self.PARTS}
        self.parts = [part for part, problem in self.refused.items() if not problem]
        if "limits" in self.parts:
            self.urls.limit_class = LIMIT_CLASS
        for part, problem in self.refused.items():
            if problem:
                say(f"NOT MEASURED on Segue's side: {part}. Its configuration refuses it: {problem}")

    def config(self, folder: pathlib.Path, kind: str, parts: list[str], port: int, admin: int, origin: int,
               memory: int = MEMORY) -> str:
        s3 = 'region = "us-east-1"\nbucket = "media"\naccess_key = "bench"\nsecret_key = "bench"\n' if kind == "s3" else ""
        text = textwrap.dedent(f"""\
            name = "bench"
            listen = "127.0.0.1:{port}"
            admin_listen = "127.0.0.1:{admin}"
            [origin]
            kind = "{kind}"
            endpoint = "http://127.0.0.1:{origin}"
            {{s3}}
            [keys]
            {load.KEY_ID} = "env:SEGUE_KEY_K1"
            [connections]
            max = {MAX_CONNECTIONS}
            idle_timeout = "{IDLE_SECONDS}s"
            """).format(s3=s3)
        values = {"dir": folder, "memory": memory, "certificate": self.certificate.certificate, "key": self.certificate.key}
        return text + "".join(self.PARTS[part].format(**values) for part in parts)

    def check(self, folder: pathlib.Path, kind: str, parts: list[str]) -> str:
        """What the command says against a configuration; empty where it has nothing against it."""
        if "policy" in parts:
            if not self.reference.is_file():
                return f"there is no {self.reference}; `make policies` builds it"
            policyfiles.write(folder / "policies", self.reference)
        file = folder / "check.toml"
        file.write_text(self.config(folder, kind, parts, 1, 2, 3))
        done = subprocess.run([self.command, "edge", "--config", file, "--check"], env=load.segue_env(),
                              capture_output=True, text=True, timeout=20, check=False)
        return "" if done.returncode == 0 else " ".join((done.stderr or done.stdout).replace(str(file), "").split())

    def start(self, core: int, folder: pathlib.Path, origin: int, parts: list[str], memory: int = MEMORY) -> "SegueServer":
        folder.mkdir(parents=True)
        port, admin = free_port(), free_port()
        wanted = [part for part in parts if part in self.parts]
        if "policy" in wanted:
            policyfiles.write(folder / "policies", self.reference)
        config = folder / "edge.toml"
        config.write_text(self.config(folder, self.kind, wanted, port, admin, origin, memory))
        command = [self.command, "edge", "--config", config]
        return SegueServer("segue", command, core, folder, port, "tls" in wanted, admin)


class SegueServer(Server):
    """A running edge and its admin listener."""

    def __init__(self, name, command, core, folder, port, tls, admin):
        super().__init__(name, command, core, folder, port, tls, load.segue_env())
        self.admin = admin

    def metrics(self) -> dict[str, float]:
        """The samples of /metrics by their full name, labels included; empty where there is no such listener."""
        try:
            client = load.connection(self.admin, False)
            client.request("GET", "/metrics")
            answer = client.getresponse()
            text = answer.read().decode() if answer.status == 200 else ""
        except OSError:
            text = ""
        finally:
            client.close()
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {parts[0]: float(parts[1]) for parts in samples if len(parts) == 2}

    def sessions_in_facts(self, count: int) -> int:
        """How many of the benchmark's sessions the local log of facts names: proof that facts are written."""
        found = set()
        wanted = [load.session(number) for number in range(count)]
        for file in sorted((self.folder / "events" / "facts").glob("*"))[:2]:
            if file.is_file():
                with open(file, "rb") as log:
                    text = log.read(8 << 20)
                found |= {sid for sid in wanted if f'"{sid}"'.encode() in text}
        return len(found)
