"""What one GPU does in a quarter of an hour: the throughput record, then the tournament of losses.

The record: ResNet-50, 448 -> 224 px, 8 images x 8 views a batch, bfloat16, by benchmarks/
accelerator.py: view pairs a second, share of the chip's limit, hours of the paper's schedule. Then
benchmarks/tournament.py with the minutes that are left. Writes accelerator.json, tournament.json
and queries.parquet. Needs what benchmarks/accelerator.py needs.
Run: python -m benchmarks.gpu_record --output FOLDER --minutes 9 --workers 8 --seeds 10
Anywhere, in seconds: python -m benchmarks.gpu_record --output FOLDER --toy
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import accelerator, tournament


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--minutes", type=float, default=25.0, help="for all of it")
    parser.add_argument("--toy", action="store_true", help="everything tiny, on any device")
    given, rest = parser.parse_known_args(arguments)
    until_s = time.monotonic() + 60 * given.minutes
    given.output.mkdir(parents=True, exist_ok=True)
    toy = ["--toy"] if given.toy else []
    record = ["--output", str(given.output / "accelerator.json"), "--compile", "off"]
    record += (
        ["--pairs", "64:32", "--images", "2"] if toy else ["--pairs", "448:224", "--images", "8"]
    )
    if code := accelerator.main([*record, *toy]):
        return code
    minutes = (until_s - time.monotonic()) / 60
    left = ["--output", str(given.output), "--minutes", f"{minutes:.2f}"]
    return tournament.main([*left, *toy, *rest])


if __name__ == "__main__":
    sys.exit(main())
