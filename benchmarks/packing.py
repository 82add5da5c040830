"""Packs of up to the size of SOP: memory and rate of writing, rate of opening and random reading.

Each size runs in a process of its own, one core, so that its peak of resident memory is its own.
The images are 64 different JPEG files of 300 to 500 pixels a side and 25 kB on average, as those
of SOP are, repeated under new names. Rates are given by wall clock and, for a machine that others
use too, by CPU seconds of this one thread.
Run: python -m benchmarks.packing [--images 1200 12000 120000] [--folder FOLDER] [--normalise]
"""

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.decode import normalise_image
from pipeline.datasets.packs import open_pack, write_pack
from pipeline.datasets.reader import ImageRecord
from pipeline.views.coupled import cached_decoder
from pipeline.views.evaluation import image_tensor

MIB = 2**20
DIFFERENT = 64
IMAGES_PER_CLASS = 5  # as SOP has on average
READ_ROWS = 1000
READ_PX = 64


def encoded_images() -> list[tuple[bytes, int, int]]:
    """Different JPEG files with the detail of photographs, each with its width and height."""
    generator = np.random.default_rng(0)
    images = []
    for _ in range(DIFFERENT):
        width, height = (int(side) for side in generator.integers(300, 501, 2))
        coarse = generator.integers(0, 256, (height // 11, width // 11, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=72)
        images.append((buffer.getvalue(), width, height))
    return images


def records(count: int, *, normalise: bool) -> Iterator[ImageRecord]:
    """Made-up records; with `normalise` each is decoded in full, as a source's images are."""
    images = encoded_images()
    for number in range(count):
        encoded, width, height = images[number % DIFFERENT]
        label = number // IMAGES_PER_CLASS
        name = f"class_{label:06d}/{number:08d}.jpg"
        if normalise:
            encoded, width, height, _ = normalise_image(encoded, name)
        split = "train" if number < count // 2 // IMAGES_PER_CLASS * IMAGES_PER_CLASS else "test"
        yield ImageRecord(name, f"class_{label:06d}", split, encoded, width, height)


def peak_mib() -> float:
    """The largest resident memory of this process so far (Linux: in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(path: Path, count: int, *, normalise: bool) -> None:
    before = peak_mib()
    started_s = time.perf_counter()
    write_pack(path, records(count, normalise=normalise))
    took_s = time.perf_counter() - started_s
    print(
        f"{count} images, {path.stat().st_size / MIB:.0f} MiB: written in {took_s:.1f} s, "
        f"{count / took_s:.0f} images/s; peak {peak_mib():.0f} MiB resident, "
        f"{before:.0f} MiB of it libraries",
        flush=True,
    )


def read(path: Path) -> None:
    open_pack(path)  # imports what it needs
    started_s = time.perf_counter()
    pack = open_pack(path)
    opened_s = time.perf_counter() - started_s
    rows = np.random.default_rng(1).integers(0, len(pack), READ_ROWS)

    def read_small(row: int) -> None:
        image = pack.small_image(row, READ_PX)
        tensor = image_tensor(image.resize((READ_PX, READ_PX), Image.Resampling.BILINEAR))
        assert tensor.shape == (3, READ_PX, READ_PX)

    small, full = rate(read_small, rows), rate(cached_decoder(pack, 0), rows)
    print(
        f"  opened in {1000 * opened_s:.0f} ms; {READ_ROWS} random rows: at {READ_PX} px {small}, "
        f"in full {full}; peak {peak_mib():.0f} MiB resident, mapped pages included",
        flush=True,
    )


def rate(work: Callable[[int], object], rows: np.ndarray) -> str:
    """How many of the rows are worked off in a second."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for row in rows:
        work(int(row))
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    return f"{len(rows) / wall_s:.0f}/s ({len(rows) / cpu_s:.0f} a CPU second)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1200, 12_000, 120_000])
    parser.add_argument("--folder", type=Path, help="where the packs lie for the time of the run")
    parser.add_argument("--normalise", action="store_true", help="decode every image once")
    parser.add_argument("--step", choices=["write", "read"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        path = given.folder / "pack.arrow"
        if given.step == "write":
            write(path, given.images[0], normalise=given.normalise)
        else:
            read(path)
        return
    for count in given.images:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            for step in ("write", "read"):
                command = [sys.executable, "-m", "benchmarks.packing", "--images", str(count)]
                command += ["--folder", folder, "--step", step]
                command += ["--normalise"] if given.normalise else []
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
