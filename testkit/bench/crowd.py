"""A crowd: many clients on one object at once. Prints one JSON object with what each of them saw.

One thread over epoll, a few microseconds for each read, so that the measuring adds little to what is measured: a
coroutine for each client would add more than the 20 ms that are to be judged. Started as a process of its own.
"""

import argparse
import gc
import hashlib
import json
import select
import socket
import time

CLIENTS_AT_ONCE = 64
READ = 256 * 1024


class Client:
    """One client: what it asked, when, and what came."""

    def __init__(self, target: str, address):
        host = f"{address[0]}:{address[1]}"
        self.request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n\r\n".encode()
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.head = b""
        self.status = 0
        self.length = -1
        self.got = 0
        self.sent_ns = self.first_ns = self.end_ns = 0
        self.digest = hashlib.sha256()

    def read(self) -> bool:
        """Takes what is there. True once the answer is whole or can not become so."""
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return False
        except OSError:
            return True
        now = time.monotonic_ns()
        if not data:
            return True
        if self.status == 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return len(self.head) > 64 * 1024
            data = self.head[end + 4 :]
            self.take_head(self.head[:end].decode("latin-1"))
        if data:
            self.first_ns = self.first_ns or now
            self.got += len(data)
            self.digest.update(data)
        if self.got >= self.length >= 0:
            self.end_ns = now
            return True
        return self.length < 0

    def take_head(self, head: str) -> None:
        lines = head.split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                self.length = int(value)


def run(settings) -> dict:
    with open(settings.targets, encoding="ascii") as file:
        targets = file.read().split()
    address = ("127.0.0.1", settings.port)
    clients = [Client(targets[number % len(targets)], address) for number in range(settings.clients)]
    poll = select.epoll()
    by_fd = {}
    for client in clients:
        by_fd[client.socket.fileno()] = client
        poll.register(client.socket.fileno(), select.EPOLLIN)
    # Every connection has been accepted and stands idle before the first request leaves.
    time.sleep(0.3)
    gc.disable()
    for client in clients:
        client.sent_ns = time.monotonic_ns()
        client.socket.send(client.request)
    deadline = time.monotonic() + settings.timeout
    while by_fd and time.monotonic() < deadline:
        # Small batches, so that a late event in one is not held up by the reading of many before it.
        for fd, _ in poll.poll(1.0, CLIENTS_AT_ONCE):
            if by_fd[fd].read():
                poll.unregister(fd)
                del by_fd[fd]
    for client in clients:
        client.socket.close()
    return {
        "whole": sum(c.status == 200 and c.digest.hexdigest() == settings.sha256 for c in clients),
        "statuses": {str(s): sum(c.status == s for c in clients) for s in sorted({c.status for c in clients})},
        "first_ns": [c.first_ns for c in clients],
        "end_ns": [c.end_ns for c in clients],
        "sent_ns": [clients[0].sent_ns, clients[-1].sent_ns],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--targets", required=True, help="a file with one request target a line, used in turn")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--sha256", required=True, help="what every body must be")
    parser.add_argument("--timeout", type=float, default=60.0)
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
