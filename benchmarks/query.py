"""A query end to end, student against teacher: JPEG bytes to the ten most similar of a database.

Both sides are the same backbone with random weights, the student fed small views and the teacher
large ones, on one thread, in turns within one run. Steps: decode the JPEG, make the view, embed it,
search an exact FAISS index of random unit vectors. A reduced decode lets the decoder scale the
JPEG, where that leaves a shorter side of so many times (the margin) what the view needs. The int8
encoder is `pipeline.export.quantisation`'s. Times are medians, in milliseconds a query;
the ratio is the teacher's total over the student's (on a shared machine that of CPU time is the
steadier one).
Run: python -m benchmarks.query [--sides 4000 3000]
"""

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.views import photograph
from pipeline.datasets.decode import decode_image
from pipeline.export.quantisation import quantise_onnx
from pipeline.models.encoders import Encoder
from pipeline.models.onnx import write_onnx
from pipeline.models.query_encoder import QueryEncoder, least_decoded_px, square_view
from pipeline.models.torch_encoder import TorchEncoder
from pipeline.models.weights import build_embedder
from pipeline.search.structures import read_index, write_exact_index

STEPS = ("decode", "view", "embed", "search")
ENGINES = ("PyTorch", "ONNX", "ONNX int8")
DECODES: dict[str, int | None] = {"full": None, "reduced x2": 2, "reduced x1": 1}
RESULTS = 10


@dataclass(frozen=True)
class Side:
    """A network in every engine."""

    name: str
    size_px: int
    encoders: dict[str, Encoder]


def make_side(
    name: str, backbone: str, dim: int, size_px: int, folder: Path, jpegs: list[bytes]
) -> Side:
    """Build a network, export it and quantise it, its scales from views of `jpegs`."""
    network = build_embedder(backbone, dim, weights="random", seed=0).eval().requires_grad_(False)
    files = {engine: folder / f"{name}-{engine}.onnx" for engine in ENGINES[1:]}
    write_onnx(files["ONNX"], network, size_px)
    views = np.stack([square_view(decode_image(jpeg, name), size_px) for jpeg in jpegs])
    quantise_onnx(files["ONNX"], files["ONNX int8"], views)
    encoders: dict[str, Encoder] = {"PyTorch": TorchEncoder(network, size_px, torch.device("cpu"))}
    encoders |= {engine: QueryEncoder(file, threads=1) for engine, file in files.items()}
    return Side(name, size_px, encoders)


def ask(side: Side, engine: str, jpegs: list[bytes], margin: int | None, index: Any) -> np.ndarray:
    """Milliseconds a query of one batch: each step, all of them, all of them in CPU time."""
    least_px = None if margin is None else least_decoded_px(side.size_px, margin)
    started_cpu_s = time.process_time()
    marks_s = [time.perf_counter()]
    pictures = [decode_image(jpeg, "query", least_px=least_px) for jpeg in jpegs]
    marks_s.append(time.perf_counter())
    views = np.stack([square_view(picture, side.size_px) for picture in pictures])
    marks_s.append(time.perf_counter())
    vectors = side.encoders[engine].embed(views)
    marks_s.append(time.perf_counter())
    index.search(vectors, RESULTS)
    marks_s.append(time.perf_counter())
    cpu_s = time.process_time() - started_cpu_s
    return 1000 * np.array([*np.diff(marks_s), marks_s[-1] - marks_s[0], cpu_s]) / len(jpegs)


def decoded_px(side: Side, jpeg: bytes, margin: int | None) -> int:
    """The shorter side that a JPEG is decoded to."""
    least_px = None if margin is None else least_decoded_px(side.size_px, margin)
    return min(decode_image(jpeg, "query", least_px=least_px).size)


def compare(sides: list[Side], jpegs: list[bytes], index: Any, repeats: int) -> None:
    """Print each engine and decode, both sides in turns, and the ratio of their totals."""
    columns = "".join(f"{step:>9}" for step in (*STEPS, "total", "CPU"))
    print(
        f"\nbatch {len(jpegs)}, ms a query\n"
        f"{'engine':10} {'decode':11} {'side':8} {'decoded px':>10}{columns}"
        f"{'ratio':>8}{'of CPU':>8}"
    )
    student, teacher = sides
    full_px = decoded_px(student, jpegs[0], None)
    for engine, (decode, margin) in itertools.product(ENGINES, DECODES.items()):
        decoded = {side.name: decoded_px(side, jpegs[0], margin) for side in sides}
        if margin is not None and set(decoded.values()) == {full_px}:
            print(f"{engine:10} {decode:11} as full: these JPEGs are too small to be reduced")
            continue
        runs: dict[str, list[np.ndarray]] = {side.name: [] for side in sides}
        for number in range(repeats + 1):
            for side in sides:
                times_ms = ask(side, engine, jpegs, margin, index)
                if number:  # the first warms up
                    runs[side.name].append(times_ms)
        medians = {name: np.median(of, axis=0) for name, of in runs.items()}
        ratios = medians[teacher.name] / medians[student.name]
        for name, times_ms in medians.items():
            numbers = "".join(f"{time_ms:9.2f}" for time_ms in times_ms)
            told = "".join(f"{ratio:7.1f}x" for ratio in ratios[-2:])
            print(
                f"{engine:10} {decode:11} {name:8} {decoded[name]:10}{numbers}"
                f"{told if name == teacher.name else ''}",
                flush=True,
            )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="timm/resnet50")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--student-px", type=int, default=112)
    parser.add_argument("--teacher-px", type=int, default=448)
    parser.add_argument("--sides", type=int, nargs=2, default=(500, 375), help="of the JPEG files")
    parser.add_argument("--database", type=int, default=5924, help="vectors of the index")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 32))
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side, after one more")
    parser.add_argument("--calibration", type=int, default=8, help="images int8 is calibrated on")
    given = parser.parse_args(arguments)
    import faiss

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    jpegs = [photograph(number, *given.sides) for number in range(max(given.batches))]
    scenes = [photograph(10_000 + n, *given.sides) for n in range(given.calibration)]
    with TemporaryDirectory() as folder:
        vectors = torch.randn(given.database, given.dim, generator=torch.Generator().manual_seed(0))
        write_exact_index(
            Path(folder, "index.faiss"), torch.nn.functional.normalize(vectors).numpy()
        )
        index = read_index(Path(folder, "index.faiss"))
        sides = [
            make_side(name, given.backbone, given.dim, size_px, Path(folder), scenes)
            for name, size_px in (("student", given.student_px), ("teacher", given.teacher_px))
        ]
        width, height = given.sides
        size_kb = np.mean([len(jpeg) for jpeg in jpegs]) / 1000
        print(
            f"{given.backbone}, random weights, {given.dim} numbers; "
            f"student {given.student_px} px, teacher {given.teacher_px} px; "
            f"JPEG of {width} x {height}, {size_kb:.0f} kB; exact index of {given.database} "
            f"vectors; one thread, median of {given.repeats}"
        )
        for batch in given.batches:
            compare(sides, jpegs[:batch], index, given.repeats)


if __name__ == "__main__":
    main()
