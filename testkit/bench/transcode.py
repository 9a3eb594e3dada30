#!/usr/bin/env python3
"""Segue's transcoder beside plain ffmpeg: a seven-minute song, three AAC renditions, loudness measured and applied.

  plain      ffmpeg in two passes: `ebur128` with true peak, then one run with three encoders with ffmpeg's own options
  same       the same, with the very encoder options that Segue uses
  loudnorm   ffmpeg in the two passes that its documentation has: `loudnorm` measuring, then `loudnorm` with what it measured
  segue      `segue demo`, from the claim of the job to its completion: fetching, checking, measuring, encoding, uploading

All of it on the same two cores, in interleaved rounds, into a folder of its own. Needs ffmpeg, taskset, and with --early
node with testkit/browser installed. The song is the longest MP3 of Debian's asc-music as FLAC, so that no rung of the
ladder is left out; without the package, seven minutes of noise.

The page docs/performance-transcode.md is written by a full form, or where --docs names a folder. Exit status: 0 measured;
1 something was wrong, so that the numbers would not be true; 2 usage. Whether a target is met does not change the status.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True

ROOT = pathlib.Path(__file__).resolve().parents[2]
MUSIC = pathlib.Path("/usr/share/games/asc/music")
SAME = [
    ["-aac_coder", "twoloop", "-aac_pns", "0", "-aac_is", "0", "-aac_tns", "0"],
    ["-aac_coder", "fast", "-aac_pns", "0", "-aac_is", "0"],
    ["-aac_coder", "fast", "-aac_pns", "0", "-aac_is", "0"],
]
RATES = ["64k", "128k", "256k"]
#: Target of the issue: Segue's time over that of plain ffmpeg.
SHARE = 0.6
#: From the upload's last byte to the first sound, in milliseconds.
START_MS = 3000
#: The longest that one thing may take before the benchmark is wrong, in seconds.
BOUND = 300


class Failure(Exception):
    """What is measured does not work."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(command: list[str], cores: str) -> str:
    """Runs on the cores; answers standard error."""
    done = subprocess.run(["taskset", "-c", cores, *command], capture_output=True, text=True, timeout=BOUND)
    if done.returncode != 0:
        raise Failure(f"{command[0]}: {done.stderr[-2000:]}")
    return done.stderr


def ffmpeg(*words: str) -> list[str]:
    return ["ffmpeg", "-hide_banner", "-nostdin", "-y", *words]


def song(folder: pathlib.Path) -> pathlib.Path:
    """The song, as FLAC."""
    target = folder / "song.flac"
    found = sorted(MUSIC.glob("*.mp3"), key=lambda path: path.stat().st_size)
    source = ["-i", str(found[-1])] if found else ["-f", "lavfi", "-i", "anoisesrc=d=440:c=pink:r=44100:a=0.3", "-ac", "2"]
    subprocess.run(ffmpeg("-v", "error", *source, "-sample_fmt", "s16", str(target)), check=True)
    return target


def outputs(folder: pathlib.Path, options: list[list[str]], filters: str) -> list[str]:
    """Three HLS renditions from one decode."""
    words = ["-filter_complex", f"[0:a:0]{filters},asplit=3[o0][o1][o2]"]
    for n, rate in enumerate(RATES):
        into = folder / rate
        into.mkdir(parents=True, exist_ok=True)
        words += ["-map", f"[o{n}]", "-c:a", "aac", "-b:a", rate, *options[n], "-f", "hls", "-hls_time", "6",
                  "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", "init.mp4",
                  "-hls_segment_filename", str(into / "seg-%05d.m4s"), str(into / "index.m3u8")]
    return words


def two_passes(source: pathlib.Path, folder: pathlib.Path, options: list[list[str]], cores: str) -> float:
    """Plain ffmpeg: measured by `ebur128`, applied by `volume`."""
    began = time.monotonic()
    told = run(ffmpeg("-nostats", "-i", str(source), "-af", "ebur128=peak=true:framelog=verbose", "-f", "null", "-"), cores)
    summary = told[told.rindex("Summary:"):]
    lufs = float(re.search(r"I:\s+(-?[\d.]+)", summary)[1])
    peak = float(re.search(r"Peak:\s+(-?[\d.]+)", summary)[1])
    gain = min(-14 - lufs, -1 - peak)
    run(ffmpeg("-v", "error", "-i", str(source), *outputs(folder, options, f"volume={gain:.2f}dB:precision=float")), cores)
    return time.monotonic() - began


def loudnorm(source: pathlib.Path, folder: pathlib.Path, cores: str) -> float:
    """Plain ffmpeg: the two passes of `loudnorm`."""
    began = time.monotonic()
    target = "loudnorm=I=-14:TP=-1:LRA=11"
    told = run(ffmpeg("-nostats", "-i", str(source), "-af", f"{target}:print_format=json", "-f", "null", "-"), cores)
    told = json.loads(told[told.rindex("{"):told.rindex("}") + 1])
    known = (f"{target}:linear=true:measured_I={told['input_i']}:measured_TP={told['input_tp']}:measured_LRA={told['input_lra']}"
             f":measured_thresh={told['input_thresh']}:offset={told['target_offset']},aresample=44100,aformat=channel_layouts=stereo")
    run(ffmpeg("-v", "error", "-i", str(source), *outputs(folder, [[], [], []], known)), cores)
    return time.monotonic() - began


class Demo:
    """`segue demo` on the cores."""

    def __init__(self, segue: pathlib.Path, folder: pathlib.Path, cores: str):
        self.log = (folder / "demo.log").open("w")
        command = ["taskset", "-c", cores, str(segue), "demo", "--dir", str(folder / "demo"), "--port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, start_new_session=True)
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"segue demo did not start; see {self.log.name}")
        self.ready = json.loads(line)

    def call(self, method: str, path: str, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.ready['token']}", "content-type": "application/json"}
        request = urllib.request.Request(self.ready["control"] + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def transcode(self, source: pathlib.Path) -> tuple[float, dict]:
        """Seconds from the job's queueing to the track's readiness."""
        made = self.call("POST", "/v1/tracks", {"filename": source.name, "size": source.stat().st_size})
        upload, track = made["upload"], made["track"]["track"]
        headers = {name: value for name, value in upload["headers"].items() if name.lower() not in ("host", "content-length")}
        put = urllib.request.Request(upload["url"], data=source.read_bytes(), headers=headers, method=upload["method"])
        urllib.request.urlopen(put, timeout=120).close()
        began = time.monotonic()
        self.call("POST", f"/v1/tracks/{track}/uploaded", {})
        while time.monotonic() - began < BOUND:
            shown = self.call("GET", f"/v1/tracks/{track}")
            if shown["status"] == "ready":
                seconds = time.monotonic() - began
                if len(shown["renditions"]) != len(RATES):
                    raise Failure(f"{len(shown['renditions'])} renditions were made")
                return seconds, shown
            if shown["status"] == "failed":
                raise Failure(f"{shown['reason']}: {shown['message']}")
            time.sleep(0.01)
        raise Failure("the track was not ready in time")

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


def early(demo: Demo, source: pathlib.Path, folder: pathlib.Path) -> dict:
    """hls.js in Chromium, from the upload's last byte to the first sound."""
    result = folder / "early.json"
    environment = {**os.environ, "SEGUE_PAGE": demo.ready["page"], "SEGUE_MEDIA": str(source), "SEGUE_EARLY_RESULT": str(result)}
    done = subprocess.run(["node", "--test", "early.test.mjs"], cwd=ROOT / "testkit/browser", env=environment,
                          capture_output=True, text=True, timeout=BOUND)
    if not result.exists():
        raise Failure(f"early.test.mjs: {done.stdout[-2000:]}")
    return json.loads(result.read_text())


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def page(measured: dict, rounds: int, quick: bool) -> str:
    segue = measured["segue"]
    rows = []
    names = {
        "plain": "ffmpeg, `ebur128` then three encoders, its own options",
        "same": "ffmpeg, the same with Segue's encoder options",
        "loudnorm": "ffmpeg, `loudnorm` in two passes",
    }
    for key, name in names.items():
        ratios = [ours / theirs for ours, theirs in zip(segue, measured[key])]
        verdict = "met" if statistics.median(ratios) <= SHARE else "**missed**"
        rows.append(f"| {name} | {spread(ratios)} | at most {SHARE} | {verdict} | {spread(segue)} s | {spread(measured[key])} s |")
    starts = [one["start_ms"] for one in measured["early"]]
    start = "not measured"
    if starts:
        verdict = "met" if statistics.median(starts) <= START_MS else "**missed**"
        ready = [one["ready_ms"] for one in measured["early"]]
        start = (f"{statistics.median(starts):.0f} ms [{min(starts):.0f}, {max(starts):.0f}]; target at most {START_MS} ms: {verdict}. "
                 f"The track was whole after {statistics.median(ready):.0f} ms.")
    form = "> These are numbers of the quick form.\n\n" if quick else ""
    return f"""# Performance of the transcoder

{form}A song of {measured['seconds']:.0f} s (FLAC, 44.1 kHz, stereo) into AAC at 64, 128 and 256 kbit/s, loudness measured and applied, on two cores. `make transcode-bench` takes it anew on your machine and writes this page.

| beside | Segue / ffmpeg | target | | Segue | ffmpeg |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Medians of {rounds} interleaved rounds with [low, high]; each ratio is taken within its round.

## From the upload's last byte to the first sound

hls.js in headless Chromium, on a page of another origin, its first load included: {start}

## How it is measured

- Segue's time runs from `POST …/uploaded` to the track being `ready`: checking the object, claiming the job, fetching the source, hashing and
  probing it, measuring, encoding, every upload to S3 and the publication. ffmpeg's is that of its two runs alone, reading and writing local files.
- Everything runs on cores {measured['cores']}: `segue demo` as a whole, S3 server and edge included, and ffmpeg.
- ffmpeg decodes once for all three encoders, and writes the same kind of segments. Its encoder options: its own, and Segue's (`ladder.rs` says why they differ).
- ffmpeg: `{measured['version']}`.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segue", type=pathlib.Path, default=ROOT / "target/release/segue", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="one round, and one early start")
    parser.add_argument("--cores", default="0,1", help="the two cores (default: 0,1)")
    parser.add_argument("--no-early", action="store_true", help="leave out the browser")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "target/bench/transcode.json", metavar="OUT")
    parser.add_argument("--docs", type=pathlib.Path, metavar="DIR", help="write the page there (a full form: docs/)")
    given = parser.parse_args()
    missing = [name for name in ("ffmpeg", "taskset", *(() if given.no_early else ("node",))) if not shutil.which(name)]
    if missing or not given.segue.exists():
        parser.error(f"not there: {', '.join(missing) or given.segue}")
    rounds = 1 if given.quick else 5
    measured = {"plain": [], "same": [], "loudnorm": [], "segue": [], "early": [], "cores": given.cores}
    measured["version"] = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout.splitlines()[0]
    with tempfile.TemporaryDirectory(prefix="segue-transcode-bench-") as name:
        folder = pathlib.Path(name)
        source = song(folder)
        demo = Demo(given.segue, folder, given.cores)
        try:
            # Once unmeasured: programs and libraries into the page cache, for all.
            _, shown = demo.transcode(source)
            measured["seconds"] = shown["duration_ms"] / 1000
            for n in range(rounds):
                order = ["plain", "same", "loudnorm", "segue"]
                for kind in order[n % 4:] + order[:n % 4]:
                    into = folder / f"{kind}-{n}"
                    seconds = {
                        "plain": lambda: two_passes(source, into, [[], [], []], given.cores),
                        "same": lambda: two_passes(source, into, SAME, given.cores),
                        "loudnorm": lambda: loudnorm(source, into, given.cores),
                        "segue": lambda: demo.transcode(source)[0],
                    }[kind]()
                    shutil.rmtree(into, ignore_errors=True)
                    measured[kind].append(seconds)
                    say(f"round {n + 1}: {kind} {seconds:.2f} s")
            for n in range(0 if given.no_early else rounds):
                measured["early"].append(early(demo, source, folder))
                say(f"round {n + 1}: early {measured['early'][-1]}")
        finally:
            demo.stop()
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(measured, indent=1))
    docs = given.docs or (None if given.quick else ROOT / "docs")
    if docs:
        (docs / "performance-transcode.md").write_text(page(measured, rounds, given.quick))
    print(given.json)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, subprocess.SubprocessError) as failure:
        say(f"transcode bench: {failure}")
        sys.exit(1)
