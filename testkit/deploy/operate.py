#!/usr/bin/env python3
"""Follows docs/operate.md word for word, so that the page cannot rot.

    operate.py SEGUE PYTHON SONG

Runs every shell block of the page, in its order, in one shell, as root of a machine of its own: namespaces with a network, processes,
and layers over /etc, /usr/local/bin, /srv and /var/lib that go with it. A transcript goes to standard output; it ends with an error
where a block does, or where the song does not play through both edges.

What the page cannot have here, and what is done in its place (nothing else is):

| the page                  | here |
|---------------------------|------|
| `apt-get install`         | looks whether the packages are there (`make test` installs them) |
| `make build`              | the command is built already: SEGUE |
| `cargo install … s3s-fs`  | nothing; `s3s-fs` is moto, another S3 server, at the same address |
| `service … start`         | mariadbd and redis-server as Debian's services start them, but as this root |
| "With systemd" blocks     | passed over for the ones "Without it": systemd does not run here |
| `segue ROLE --config …`   | in the background, as the page says |
| `ffplay`                  | ffmpeg, which plays it to nobody |
| `TRACK`                   | the id that `segue track list` shows |
| `[cache] disk` of 20 GiB  | 256 MiB by SEGUE_CACHE_DISK: an edge takes its room at once |
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/operate.md"
LAYERS = ["/etc", "/usr/local/bin", "/srv", "/var/lib", "/var/cache"]

# Where each server of the page listens; what comes after it finds it there.
PORTS = {"s3s-fs ": 9000, "segue control --config": 8090, "edge.toml": 8080, "edge-2.toml": 8081}

# A role's own line: it runs until it is ended.
ROLE = re.compile(r"^(segue (?:control|transcode|edge) --config \S+)$", re.M)

PRELUDE = r"""
set -eu -o pipefail
apt-get() {
    case $1 in
        update) ;;
        install) for name in "${@:2}"; do [ "$name" = -y ] || dpkg-query --show "$name"; done ;;
        *) echo "apt-get $1 has no stand-in"; return 1 ;;
    esac
}
make() { [ "$*" = build ] && test -x target/release/segue; }
cargo() { [[ "$*" = "install "*" s3s-fs" ]]; }
s3s-fs() {
    local host= port= folder="${!#}"
    while [ $# -gt 1 ]; do case $1 in --host) host=$2 ;; --port) port=$2 ;; esac; shift; done
    test -d "$folder"
    exec "$OPERATE_PYTHON" -m moto.server -H "$host" -p "$port" >"$OPERATE_LOGS/store.log" 2>&1
}
ffplay() { ffmpeg -nostdin -v error -xerror -i "$1" -f null -; }
is_there() {
    for ((n = 0; n < 300; n++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.2
    done
    echo "nobody listens on port $1"; return 1
}
"""

# What the page says in words: both edges play, and both plays are counted.
CHECKS = r"""
for port in 8080 8081; do
    url=$(segue track play "$track" --json | sed 's/.*"url":"\([^"]*\)".*/\1/')
    ffplay "${url/:8080/:$port}"
    echo "played whole through the edge on :$port"
done
for ((n = 0; n < 300; n++)); do
    stats=$(curl -s -H "Authorization: Bearer $SEGUE_TOKEN" "$SEGUE_CONTROL/v1/tracks/$track/stats")
    [[ $stats = *'"qualified":3,'* ]] && break
    sleep 0.2
done
[[ $stats = *'"qualified":3,'* ]] || { echo "not three plays: $stats"; exit 1; }
# An edge that has just started says so at once, and that it is current with its next report.
for ((n = 0; n < 300; n++)); do
    edges=$(curl -s -H "Authorization: Bearer $SEGUE_TOKEN" "$SEGUE_CONTROL/v1/edges")
    current=$({ grep -o '"alive":true,"current":true' <<<"$edges" || true; } | wc -l)
    ((current == 2)) && break
    sleep 0.2
done
((current == 2)) || { echo "not two edges: $edges"; exit 1; }
echo "three plays are counted, and both edges are alive and current"
"""


def blocks(page):
    """The page's shell blocks, each with the headings and the line before it."""
    found, heading, paragraph, block = [], [], "", []
    for line in page.splitlines() + ["."]:
        if line.startswith("    "):
            block.append(line[4:])
        elif block and not line.strip():
            block.append("")
        else:
            if block:
                found.append(("\n\n".join([*heading, paragraph]), "\n".join(block).strip("\n")))
                heading, paragraph, block = [], "", []
            if line.startswith("#"):
                heading.append(line)
            elif line.strip():
                paragraph = line
    return found


def followed(page):
    """The script: each block as it stands, shown before it runs."""
    script = [PRELUDE]
    for before, block in blocks(page):
        shown = f"cat <<'OPERATE'\n\n{before}\n\n{re.sub('^', '$ ', block, flags=re.M)}\nOPERATE"
        script.append(shown)
        if before.splitlines()[-1].startswith("With systemd"):
            script.append("echo '(passed over: systemd does not run here)'")
            continue
        if "TRACK" in block:
            script.append("track=$(segue track list --json | sed 's/.*\"track\":\"\\([^\"]*\\)\".*/\\1/' | head -n 1)")
            block = re.sub(r"\bTRACK\b", '"$track"', block.replace("play TRACK --json |", 'play $track --json |'))
        script.append(re.sub(ROLE, r'\1 2>>"$OPERATE_LOGS/segue.log" &', block))
        for what, port in PORTS.items():
            if any(what in line for line in block.splitlines() if re.match(r"(s3s-fs|segue (control|edge)) ", line)):
                script.append(f"is_there {port}")
    return "\n".join([*script, CHECKS])


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def services(logs):
    """MariaDB and Redis where Debian has them, as its services start them."""
    data = Path("/var/lib/mysql")
    data.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "tmpfs", str(data))
    os.makedirs("/run/mysqld", exist_ok=True)
    log = open(logs / "services.log", "ab")
    flags = ["--user=root", f"--datadir={data}"]
    subprocess.run(["mariadb-install-db", *flags, "--skip-test-db"], check=True, stdout=log, stderr=log)
    small = ["--innodb-buffer-pool-size=128M", "--skip-log-bin"]
    subprocess.Popen(["mariadbd", *flags, *small], stdout=log, stderr=log)
    subprocess.Popen(["redis-server", "--save", "", "--dir", str(logs)], stdout=log, stderr=log)
    for _ in range(300):
        if subprocess.run(["mariadb-admin", "ping"], stdout=log, stderr=log).returncode == 0:
            return
        time.sleep(0.2)
    sys.exit("mariadbd does not come up:\n" + (logs / "services.log").read_text())


def inside(segue, python, song, work):
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    # A script, its files and its sockets: nothing of this machine's.
    mount("--make-rprivate", "/")
    for path in LAYERS:
        upper, scratch = work / f"upper{path}", work / f"scratch{path}"
        upper.mkdir(parents=True)
        scratch.mkdir(parents=True)
        mount("-t", "overlay", "overlay", "-o", f"lowerdir={path},upperdir={upper},workdir={scratch}", path)
    checkout = work / "checkout"
    (checkout / "target/release").mkdir(parents=True)
    (checkout / "deploy").symlink_to(ROOT / "deploy")
    (checkout / "target/release/segue").symlink_to(segue)
    (checkout / "song.flac").symlink_to(song)
    logs = work / "logs"
    logs.mkdir()
    mount("-t", "tmpfs", "tmpfs", "/run")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    services(logs)
    environment = {"PATH": os.environ["PATH"], "HOME": "/root", "OPERATE_PYTHON": python, "OPERATE_LOGS": str(logs), "LC_ALL": "C.UTF-8"}
    environment["SEGUE_CACHE_DISK"] = "256MiB"
    script = followed(PAGE.read_text())
    done = subprocess.run(["bash", "-c", script], cwd=checkout, env=environment, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        for log in sorted(logs.glob("*.log")):
            print(f"== {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]), flush=True)
        sys.exit("the page cannot be followed")


def main():
    if sys.argv[1] == "--inside":
        return inside(*sys.argv[2:5], Path(sys.argv[5]))
    segue, python, song = sys.argv[1:4]
    alone = ["--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        alone += ["--user", "--map-root-user"]
    # Layers want a file system of their own kind below them, which /tmp may not be.
    with tempfile.TemporaryDirectory(prefix="operate-", dir=os.environ.get("OPERATE_WORK", "/var/tmp")) as work:
        inner = [sys.executable, "-B", __file__, "--inside", segue, python, song, work]
        return subprocess.run(["unshare", *alone, *inner]).returncode


if __name__ == "__main__":
    sys.exit(main())
