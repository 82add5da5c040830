"""Which loss makes the best student: a tournament on emblems that needs no more than a training.

For each seed a teacher is trained, and from its weights a student by each entry: a loss, the images
and views of a batch, coupled or independent pairs; two entries start from random weights. All see
as many view pairs in as many steps. The learning rate of an entry and a size is the best of a grid
by the asymmetric map of validation classes, with the first seed's teacher; then students learn from
all training classes and meet the test classes once. Writes tournament.json (a row a role) and
queries.parquet (the average precision of every query) as it goes; --minutes ends it with what is
done, seed by seed.
Needs what benchmarks/accelerator.py needs.
Run: python -m benchmarks.tournament --output FOLDER --workers 8 --seeds 10 --minutes 8
Anywhere, in seconds: python -m benchmarks.tournament --output FOLDER --toy
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from benchmarks.tournament_cells import (
    Cell,
    Entry,
    OutOfTimeError,
    Place,
    Result,
    Scale,
    train_student,
    train_teacher,
)
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import write_pack
from pipeline.files import replacing, write_text

WRITTEN_EVERY_S = 5.0
EMBLEMS = {"families": 24, "members": 5, "images_per_class": 16, "image_px": 112}
FULL = Scale(EMBLEMS, 96, (48,), 128, 64, 15, 10, (1e-3, 3e-3, 1e-2, 3e-2))
TINY = {"families": 6, "members": 3, "images_per_class": 5, "image_px": 40}
TOY = Scale(TINY, 32, (16,), 16, 8, 1, 1, (1e-3, 1e-2))

LAMBDAS = {"lambda_ts": 0.7, "lambda_ss": 0.7}
between_images = partial(Entry, images=32, views=1, least_images=17)
COUPLED = (
    Entry("raml", "raml", LAMBDAS),
    Entry("absolute", "absolute"),
    between_images("absolute, 32 x 1", "absolute"),
    between_images("raml_batch", "raml_batch", LAMBDAS),
    between_images(
        "d3still", "d3still", {"neighbours": 10, "alpha": 100.0, "beta": 5.0, "gamma": 1.0}
    ),
    between_images(
        "csd", "csd", {"neighbours": 16, "student_temperature": 1.0, "teacher_temperature": 0.01}
    ),
    between_images("rop", "rop", {"neighbours": 16, "temperature": 0.1, "rank_weight": 0.2}),
    Entry("anchors", "anchors", {"temperature": 0.1, "absolute_weight": 0.0}),
    Entry("anchors + absolute", "anchors", {"temperature": 0.1, "absolute_weight": 1.0}),
    between_images("rkd", "rkd", {"distance_weight": 25.0, "angle_weight": 50.0}),
)
INDEPENDENT = tuple(
    replace(entry, pairs="independent")
    for entry in COUPLED
    if entry.name in ("raml", "absolute", "d3still")
)
# What relations alone make of a student that starts elsewhere: the negative control.
UNALIGNED = tuple(
    replace(entry, start="random") for entry in COUPLED if entry.name in ("raml", "rkd")
)
ENTRIES = COUPLED + INDEPENDENT + UNALIGNED


@dataclass
class Record:
    """All results so far, written every few seconds."""

    folder: Path
    facts: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    written_s: float = 0.0

    def add(self, results: list[Result]) -> None:
        self.results += results
        if time.monotonic() - self.written_s > WRITTEN_EVERY_S:
            self.write()

    def write(self) -> None:
        rows = [result.facts for result in self.results]
        text = json.dumps(self.facts | {"faults": self.faults, "rows": rows}, indent=1)
        write_text(self.folder / "tournament.json", text + "\n")
        judged = [result for result in self.results if result.facts["role"] != "validation"]
        named = ("entry", "role", "seed", "query_px")
        tables = [
            pd.DataFrame(
                {name: result.facts[name] for name in named}
                | {"query": range(len(result.queries["label"]))}
                | result.queries
            )
            for result in judged
        ]
        if tables:
            with replacing(self.folder / "queries.parquet") as temporary:
                pd.concat(tables).to_parquet(temporary, index=False)
        self.written_s = time.monotonic()


def run_all(
    pool: Executor, work: Callable[[Any], list[Result]], items: Iterable[Any], record: Record
) -> bool:
    """Do `work` for each item in turn, as workers are free; False where time ran out."""
    waiting = {pool.submit(work, item): item for item in items}
    in_time = True
    for done in as_completed(waiting):
        try:
            record.add(done.result())
        except OutOfTimeError:
            in_time = False
        except FloatingPointError as fault:  # a rate that was too high
            record.faults.append(waiting[done].facts | {"fault": str(fault)})
    record.write()
    return in_time


def trials_of(scale: Scale, seed: int) -> list[Cell]:
    return [
        Cell(entry, size_px, seed, rate, is_trial=True)
        for size_px in scale.query_px
        for entry in ENTRIES
        for rate in scale.rates
    ]


def finals_of(scale: Scale, seeds: Sequence[int], record: Record) -> list[Cell]:
    """Each seed's students, each at the rate with the best validation map."""
    trials = pd.DataFrame([r.facts for r in record.results if r.facts["role"] == "validation"])
    best = trials.sort_values("map").groupby(["entry", "query_px"])["learning_rate"].last()
    return [
        Cell(entry, size_px, seed, float(best[entry.title, size_px]), is_trial=False)
        for seed in seeds
        for size_px in scale.query_px
        for entry in ENTRIES
        if (entry.title, size_px) in best
    ]


def play(pool: Executor, place: Place, seeds: Sequence[int], record: Record) -> bool:
    """Teachers, trials, students; whether all of it was done in time."""
    student = partial(train_student, place)
    return (
        run_all(pool, partial(train_teacher, place), seeds, record)
        and run_all(pool, student, trials_of(place.scale, seeds[0]), record)
        and run_all(pool, student, finals_of(place.scale, seeds, record), record)
    )


def show(record: Record) -> None:
    """A line an entry and size: the map of each role in percent, and the range of the seeds."""
    rows = pd.DataFrame([r.facts for r in record.results if r.facts["role"] != "validation"])
    if rows.empty:
        print("nothing was done in time")
        return
    means = rows.groupby(["query_px", "entry", "role"], sort=False)["map"]
    for (size_px, entry, role), of_seeds in means:
        values = 100 * of_seeds
        print(
            f"{size_px:4} px {entry:24}{role:12}{values.mean():6.1f}"
            f"  ({values.min():.1f} to {values.max():.1f}, {len(values)} seeds)"
        )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--pack", type=Path, help="a pack.arrow of emblems; else one is rendered")
    parser.add_argument("--data-seed", type=int, default=0, help="of the emblems rendered")
    parser.add_argument("--seeds", type=int, default=10, help="how many trainings of each row")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", help="of the queries, in pixels")
    parser.add_argument("--epochs", type=int, help="over all images with all their views")
    parser.add_argument("--workers", type=int, default=1, help="processes side by side")
    parser.add_argument("--loading-threads", type=int, default=1, help="of each worker")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--toy", action="store_true", help="everything tiny")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    until = time.time() + 60 * given.minutes
    scale = TOY if given.toy else FULL
    scale = replace(
        scale,
        query_px=tuple(given.sizes or scale.query_px),
        epochs=given.epochs or scale.epochs,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chip = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    given.output.mkdir(parents=True, exist_ok=True)
    record = Record(
        given.output, {"device": chip, "torch": torch.__version__, "workers": given.workers}
    )
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    spawned = partial(ProcessPoolExecutor, mp_context=get_context("spawn"))
    executor = ThreadPoolExecutor if given.workers == 1 else spawned
    with TemporaryDirectory() as folder, executor(given.workers) as pool:
        pack = given.pack or Path(folder) / "pack.arrow"
        if given.pack is None:
            drawn = render_emblems(**scale.emblems, jpeg_quality=92, seed=given.data_seed)
            write_pack(pack, drawn)
        place = Place(pack, Path(folder), device, given.loading_threads, scale, until)
        is_complete = play(pool, place, seeds, record)
    show(record)
    print("complete" if is_complete else f"ended after {given.minutes:g} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
