#!/usr/bin/env python3
"""Reads segue's facts from Fluvio and prints, every few seconds, what was delivered per track.

    pip install fluvio
    consume.py --cluster 127.0.0.1:9003 [--topic segue-segments] [--partition 0] [--from-beginning] [--limit N]

Without --cluster it is the one of the Fluvio profile in use. Records come at least once: ids that were seen are passed over, in a window
of the last million. Offsets of a partition must follow one another; a gap is said, since what lies in it was not delivered.
"""

import argparse
import collections
import json
import sys
import time

from fluvio import Fluvio, FluvioConfig, Offset

SEEN_MAX = 1_000_000
EVERY_S = 5


def main():
    wanted = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    wanted.add_argument("--cluster", metavar="HOST:PORT")
    wanted.add_argument("--topic", default="segue-segments")
    wanted.add_argument("--partition", type=int, default=0)
    wanted.add_argument("--from-beginning", action="store_true")
    wanted.add_argument("--limit", type=int, help="end after this many records")
    args = wanted.parse_args()

    cluster = Fluvio.connect_with_config(FluvioConfig.new(args.cluster)) if args.cluster else Fluvio.connect()
    consumer = cluster.partition_consumer(args.topic, args.partition)
    start = Offset.beginning() if args.from_beginning else Offset.end()
    seen = collections.OrderedDict()
    tracks = collections.defaultdict(lambda: [0, 0])
    expected, told, records = None, time.monotonic(), 0
    for record in consumer.stream(start):
        offset = record.offset()
        if expected is not None and offset != expected:
            print(f"records {expected} to {offset - 1} were not delivered", file=sys.stderr)
        expected = offset + 1
        fact = json.loads(record.value_string())
        if fact["id"] not in seen:
            seen[fact["id"]] = None
            if len(seen) > SEEN_MAX:
                seen.popitem(last=False)
            tracks[fact["track"]][0] += 1
            tracks[fact["track"]][1] += fact["bytes"]
        records += 1
        if time.monotonic() - told > EVERY_S or records == args.limit:
            for track, (facts, size) in sorted(tracks.items()):
                print(json.dumps({"track": track, "facts": facts, "bytes": size}), flush=True)
            told = time.monotonic()
        if records == args.limit:
            return


if __name__ == "__main__":
    main()
