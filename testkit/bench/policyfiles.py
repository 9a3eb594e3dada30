"""The reference policy as an edge gets it, and what requests show so that it lets them in."""

import pathlib

#: What the requests show beside their tickets.
HEADERS = {"User-Agent": "app/1", "Origin": "https://music.example", "Referer": "https://music.example/album"}
CTX = '{"tier":"gold"}'
MANIFEST = """version = "bench"
[config]
countries = ["DE", "AT", "CH"]
tiers = ["silver", "gold"]
"""
#: Its allowances, in the edge's metrics.
VERDICTS = 'segue_policy_verdicts_total{policy="reference",version="bench",verdict="allow",reason=""}'


def script(text: str) -> str:
    """The load's script, with the headers on every request."""
    return "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in HEADERS.items()) + text


def write(folder: pathlib.Path, reference: pathlib.Path) -> None:
    """A folder of policies with the reference policy in it, and a country for loopback beside."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reference.wasm").write_bytes(reference.read_bytes())
    (folder / "reference.toml").write_text(MANIFEST)
    (folder / "country.mmdb").write_bytes(countries())


def countries() -> bytes:
    """A MaxMind database in which 127.0.0.0/8 is in Germany (MaxMind DB file format specification, version 2.0)."""
    def text(value: str) -> bytes:
        return bytes([2 << 5 | len(value)]) + value.encode()

    def number(kind: int, value: int, size: int) -> bytes:
        return bytes([kind << 5 | size]) + value.to_bytes(size, "big")

    depth = 8
    # One node for each bit of the network; what leads elsewhere leads nowhere, which is the number of nodes.
    records = []
    for bit in range(depth):
        onward = depth + 16 if bit == depth - 1 else bit + 1
        side = 127 >> (depth - 1 - bit) & 1
        records += [depth, onward] if side else [onward, depth]
    tree = b"".join(record.to_bytes(3, "big") for record in records)
    one = bytes([7 << 5 | 1])
    data = one + text("country") + one + text("iso_code") + text("DE")
    metadata = bytes([7 << 5 | 9])
    for name, value in (("node_count", number(6, depth, 4)), ("record_size", number(5, 24, 2)), ("ip_version", number(5, 4, 2)),
                        ("binary_format_major_version", number(5, 2, 2)), ("binary_format_minor_version", number(5, 0, 2)),
                        ("database_type", text("Bench-Country")), ("languages", bytes([0, 4])),
                        ("build_epoch", bytes([1, 2, 1])), ("description", bytes([7 << 5]))):
        metadata += text(name) + value
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + metadata
