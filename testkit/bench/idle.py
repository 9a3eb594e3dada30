"""Memory per idle connection: what a server holds for a client that has been served and stays.

The cost is a slope, between a smaller and a larger number of connections, so that what a server holds anyway is not
in it. Kernel memory of the sockets is not in it either; it is the same for both.
"""

import pathlib
import time

import load
from processes import Cores, Failure, family, say
from servers import Origin, Segue, Server, start_nginx_edge

FEW, MANY = 500, 2500
SIZE = load.KIB
#: How long a server may settle before its memory is read, in seconds.
SETTLE = 1.0


def resident_bytes(server: Server) -> int:
    """Proportional set size of the server's processes: pages that a master and a worker share count once."""
    total = 0
    for pid in family(server.pid):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss_Anon:"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    if not total:
        raise Failure(f"the memory of {server.name} could not be read")
    return total


class Idle:
    def __init__(self, segue: Segue, cores: Cores, folder: pathlib.Path, certificate):
        self.segue = segue
        self.cores = cores
        self.folder = folder
        self.certificate = certificate

    def measure(self) -> list[dict]:
        return [self.one(tls) for tls in ([False, True] if "tls" in self.segue.parts else [False])]

    def one(self, tls: bool) -> dict:
        place = self.folder / f"idle-{'tls' if tls else 'plain'}"
        load.write_objects(place / "objects", SIZE)
        items = load.objects(SIZE)
        result = {"tls": tls, "few": FEW, "many": MANY}
        with Origin(place / "origin", place / "objects", self.cores) as origin:
            with self.segue.start(self.cores.server, place / "segue", origin.port, ["events", "limits"] + ["tls"] * tls) as segue:
                result["segue"] = self.slope(segue, self.segue.urls.sign(items))
            with start_nginx_edge(self.cores.server, place / "nginx", origin.port, self.certificate if tls else None) as nginx:
                result["nginx"] = self.slope(nginx, load.NginxUrls().sign(items))
        return result

    def slope(self, server: Server, targets: list[str]) -> dict:
        """Opens connections, has each served once and keeps it."""
        held, marks = [], {}
        try:
            for number in range(1, MANY + 1):
                client = load.connection(server.port, server.tls)
                client.request("GET", targets[number % len(targets)])
                answer = client.getresponse()
                if answer.status != 200 or len(answer.read()) != SIZE:
                    raise Failure(f"{server.name} answered {answer.status} on idle connection {number}")
                held.append(client)
                if number in (FEW, MANY):
                    time.sleep(SETTLE)
                    marks[number] = resident_bytes(server)
        finally:
            for client in held:
                client.close()
        each = (marks[MANY] - marks[FEW]) / (MANY - FEW)
        say(f"idle, {'TLS 1.3' if server.tls else 'plain'}, {server.name}: {each / 1024:.1f} KiB for each connection")
        return {"bytes_each": each, "bytes_few": marks[FEW], "bytes_many": marks[MANY]}
