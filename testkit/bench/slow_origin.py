"""A slow origin: the first byte after a while, then a trickle. One line of JSON on standard output for each GET.

Started by the cold-fill measurement as a process of its own, so that its clock ticks are not the clients'.
"""

import argparse
import asyncio
import json
import time

import load

#: Pieces a second in which the trickle is sent.
PIECES = 10
HEAD_MAX = 16 * 1024


async def answer(reader, writer, settings) -> None:
    """Requests of one connection, one after another, until the client closes it."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            asked_ns = time.monotonic_ns()
            method, target, _ = head.split("\r\n", 1)[0].split(" ")
            path = target.split("?", 1)[0].removeprefix("/media")
            if path.endswith(".m4s"):
                await segment(writer, method, path, asked_ns, settings)
            elif path.endswith(".m3u8"):
                await at_once(writer, method, "200 OK", load.playlist(load.SEGMENTS).encode())
            else:
                await at_once(writer, method, "404 Not Found", b"not here\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def at_once(writer, method: str, status: str, content: bytes) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode())
    writer.write(content if method == "GET" else b"")
    await writer.drain()


async def segment(writer, method: str, path: str, asked_ns: int, settings) -> None:
    content = load.body(path, settings.size)
    head = (f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nContent-Type: audio/mp4\r\n"
            f'ETag: "{path.rsplit("/", 1)[-1]}"\r\nCache-Control: public, max-age=86400, immutable\r\n\r\n').encode()
    piece = settings.rate // PIECES
    await asyncio.sleep(asked_ns / 1e9 + settings.first_byte_ms / 1e3 - time.monotonic())
    first_ns = time.monotonic_ns()
    writer.write(head + (content[:piece] if method == "GET" else b""))
    for number, start in enumerate(range(piece, len(content) if method == "GET" else 0, piece), start=1):
        await asyncio.sleep(max(0.0, first_ns / 1e9 + number / PIECES - time.monotonic()))
        writer.write(content[start : start + piece])
        await writer.drain()
    await writer.drain()
    record = {"method": method, "path": path, "asked_ns": asked_ns, "first_ns": first_ns, "end_ns": time.monotonic_ns()}
    print(json.dumps(record), flush=True)


async def serve(settings) -> None:
    async def client(reader, writer):
        await answer(reader, writer, settings)

    server = await asyncio.start_server(client, "127.0.0.1", settings.port, backlog=4096, limit=HEAD_MAX)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="bytes of every segment")
    parser.add_argument("--first-byte-ms", type=int, default=300)
    parser.add_argument("--rate", type=int, default=50 * load.KIB, help="bytes a second after the first")
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
