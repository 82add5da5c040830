"""Time and memory as the work grows: packing, training, embedding, evaluation, search.

Prints a Markdown table with three sizes of each. Every measurement runs in a process of its own,
on one thread, so that its resident peak is its own; beside it stands what libraries, networks and
inputs take before the work begins. Inputs that lie on the disk are made by another process.
Run: python -m benchmarks.growth [--parts embedding search] [--toy]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.distillation import (
    Catcher,
    Setting,
    library_epochs,
    made_student,
    made_teacher,
    objective_of,
    ready_batches,
)
from benchmarks.evaluation import SOP, unit_rows
from benchmarks.packing import peak_mib, records
from benchmarks.views import made_pack
from pipeline.datasets.packs import open_pack, write_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import build_embedder
from pipeline.search.structures import read_index, write_exact_index
from pipeline.views.coupled import cached_decoder

CPU = torch.device("cpu")
BACKBONE = "timm/resnet18"
DIM = 512
TEACHER_PX, STUDENT_PX = 224, 112
VIEWS = 4
STEPS = 3
QUERIES = 100
SIDES = (500, 375)
DIFFERENT = 64


@dataclass(frozen=True)
class Cost:
    """What one measurement took. `before_mib`: the resident peak when the work began."""

    seconds: float
    before_mib: float
    peak_mib: float


def cost_of(work: Callable[[], object], times: int = 1) -> Cost:
    """Of `work`, which does the same a number of times; the seconds are those of one."""
    before_mib = peak_mib()
    started_s = time.perf_counter()
    work()
    return Cost((time.perf_counter() - started_s) / times, before_mib, peak_mib())


def packing(images: int, folder: Path) -> Cost:
    """Images that are decoded once each, as those of a source are, into a pack."""
    stream = records(images, normalise=True)
    first = next(stream)  # before it the JPEG files are made up
    write_pack(folder / "warm_up.arrow", [first])
    return cost_of(lambda: write_pack(folder / "packed.arrow", chain([first], stream)))


def make_photographs(images: int, folder: Path) -> None:
    made_pack(folder, images, *SIDES, different=DIFFERENT)


def training_step(pairs: int, folder: Path) -> Cost:
    """A step of the library's loop on so many view pairs, loaded in the same thread."""
    setting = Setting(BACKBONE, TEACHER_PX, STUDENT_PX, pairs // VIEWS, VIEWS, STEPS, dim=DIM)
    pack = open_pack(folder / "pack.arrow")
    objective = objective_of(setting, pack, cached_decoder(pack, 0), CPU, Catcher(DIM))
    ready = ready_batches(objective, 1)[0]
    student = made_student(setting, ready)
    objective = objective_of(
        setting, pack, cached_decoder(pack, 0), CPU, made_teacher(setting, ready)
    )
    before_mib = peak_mib()
    # Two epochs, of which the first also makes the optimiser's state.
    *_, epoch = library_epochs(setting, objective, student, threads=0, epochs=2)
    return Cost(epoch.wall_s / STEPS, before_mib, peak_mib())


def embedding(images: int, folder: Path) -> Cost:
    """Evaluation views of JPEG files, and their embeddings."""
    pack = open_pack(folder / "pack.arrow")
    network = build_embedder(BACKBONE, DIM, weights="random", seed=0).eval()
    embed_views(network, EvaluationViews(pack, np.arange(1), STUDENT_PX), CPU)
    views = EvaluationViews(pack, np.arange(images), STUDENT_PX)
    return cost_of(lambda: embed_views(network, views, CPU))


def exact_evaluation(images: int, _: Path) -> Cost:
    """Leave-one-out metrics of so many images, each a query against all the others."""
    database = unit_rows(images, DIM, None)
    noise = torch.randn(database.shape, generator=torch.Generator().manual_seed(1))
    query = database + 0.05 * noise
    labels = torch.arange(images) // SOP.images_per_class
    return cost_of(lambda: evaluate_retrieval(query, database, labels))


def make_index(rows: int, folder: Path) -> None:
    write_exact_index(folder / "index.faiss", unit_rows(rows, DIM, None).numpy())


def exact_search(rows: int, folder: Path) -> Cost:
    """One query in an exact index of so many rows, of a number that come one by one."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = read_index(folder / "index.faiss")
    queries = unit_rows(QUERIES, DIM, None).numpy()
    return cost_of(lambda: [index.search(query[None], 10) for query in queries], QUERIES)


def make_nothing(_: int, __: Path) -> None:
    """The part makes its inputs itself, in memory."""


@dataclass(frozen=True)
class Part:
    """One row of the table a size. `unit` is what time is given for, of which a size has `units`.

    `make` puts the inputs of a size on the disk, `measure` does the work.
    """

    make: Callable[[int, Path], None]
    measure: Callable[[int, Path], Cost]
    sizes: tuple[int, ...]
    toy_sizes: tuple[int, ...]
    what: str
    unit: str
    units: Callable[[int], int] = lambda size: size


def photographs_of_steps(pairs: int, folder: Path) -> None:
    make_photographs(pairs // VIEWS * STEPS, folder)


PARTS = {
    "packing": Part(make_nothing, packing, (500, 1500, 4500), (5, 10, 20), "{} images", "an image"),
    "training": Part(
        photographs_of_steps,
        training_step,
        (8, 16, 32),
        (4, 8, 12),
        f"a step of {{}} view pairs, {TEACHER_PX} -> {STUDENT_PX} px, {BACKBONE}",
        "a view pair",
    ),
    "embedding": Part(
        make_photographs,
        embedding,
        (100, 300, 900),
        (2, 4, 8),
        f"{{}} images at {STUDENT_PX} px, {BACKBONE}",
        "an image",
    ),
    "evaluation": Part(
        make_nothing,
        exact_evaluation,
        (5_000, 10_000, 20_000),
        (50, 100, 200),
        f"{{0}} queries x {{0}} rows x {DIM}",
        "a query and row",
        lambda size: size**2,
    ),
    "search": Part(
        make_index,
        exact_search,
        (10_000, 40_000, 160_000),
        (50, 100, 200),
        f"a query in {{}} rows x {DIM}, exact index",
        "a row",
    ),
}


def shown(seconds: float) -> str:
    """With three digits, in the unit that suits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def apart(step: str, name: str, size: int, folder: Path) -> str:
    """What a fresh process prints that makes the inputs, or measures."""
    command = [sys.executable, "-m", "benchmarks.growth", "--parts", name, "--step", step]
    command += ["--size", str(size), "--folder", str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measured(name: str, size: int) -> Cost:
    part = PARTS[name]
    with TemporaryDirectory() as folder:
        if part.make is not make_nothing:
            apart("make", name, size, Path(folder))
        return Cost(**json.loads(apart("measure", name, size, Path(folder))))


def row(name: str, size: int, cost: Cost) -> str:
    """A row of the table."""
    part = PARTS[name]
    each = f"{shown(cost.seconds / part.units(size))} {part.unit}"
    return (
        f"| {name} | {part.what.format(size)} | {shown(cost.seconds)} | {each} "
        f"| {cost.peak_mib:.0f} | {cost.before_mib:.0f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--toy", action="store_true", help="sizes that take a moment")
    parser.add_argument("--step", choices=("make", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    part = PARTS[given.parts[0]]
    if given.step == "make":
        part.make(given.size, given.folder)
        return
    if given.step == "measure":
        print(json.dumps(asdict(part.measure(given.size, given.folder))))
        return
    print("| part | size | time | time each | peak MiB | before MiB |")
    print("|---|---|---|---|---|---|")
    for name in given.parts:
        for size in PARTS[name].toy_sizes if given.toy else PARTS[name].sizes:
            print(row(name, size, measured(name, size)), flush=True)


if __name__ == "__main__":
    main()
