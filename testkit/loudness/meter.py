#!/usr/bin/env python3
"""Loudness (BS.1770-4) and true peak of sounds, by a meter that is not ours: PyPI's pyloudnorm, and scipy for the peak.

  meter.py FILE...      each a file or playlist that ffmpeg decodes

Prints one line of JSON for each: {"lufs": …, "true_peak": …} in LUFS and dBTP.
"""

import json
import subprocess
import sys

import numpy
import pyloudnorm
from scipy.signal import resample_poly

RATE = 48_000


def decoded(path: str) -> numpy.ndarray:
    """Samples of a file, a column for each of two channels."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-map", "0:a:0", "-ar", str(RATE), "-f", "f32le", "-"]
    probe = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", "stream=channels", "-of", "csv=p=0", path]
    channels = int(subprocess.run(probe, check=True, capture_output=True, text=True).stdout.split()[0].rstrip(","))
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return numpy.frombuffer(raw, dtype="<f4").reshape(-1, channels).astype(float)


def main() -> None:
    for path in sys.argv[1:]:
        samples = decoded(path)
        lufs = pyloudnorm.Meter(RATE).integrated_loudness(samples)
        # Four times oversampled, as BS.1770-4, annex 2 has it.
        peak = max(numpy.abs(resample_poly(samples, 4, 1, axis=0)).max(), 1e-9)
        print(json.dumps({"lufs": round(float(lufs), 3), "true_peak": round(float(20 * numpy.log10(peak)), 3)}))


if __name__ == "__main__":
    main()
