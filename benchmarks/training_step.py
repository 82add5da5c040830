"""A distillation's step in the library against the sum of its parts, and against the peer's step.

The library's own loop trains over a pack of made-up JPEG files, whose images are decoded
beforehand; its checkpoint is not counted. Its parts run on the same batches: (a) teacher and
student on ready tensors, in as few words as PyTorch needs; (b) the same and the making of views.
The loop loads in a thread beside the training, so that on two cores its wall time lies below the
sum; for a fair ratio it also runs in one thread. The peer's step sends the gradient through the
teacher too, as the authors' code does. All sides take turns; one thread a pool, best of the rounds.
Run: python -m benchmarks.training_step
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from benchmarks.distillation import (
    Catcher,
    ReadyBatch,
    Setting,
    Spent,
    embed_ready,
    library_epochs,
    made_student,
    made_teacher,
    objective_of,
    ready_batches,
    spent_on,
    train_ready,
)
from benchmarks.evaluation import MIB, measure
from benchmarks.views import made_pack
from pipeline.datasets.packs import Pack
from pipeline.training.distillation import DistillationObjective
from pipeline.views.coupled import cached_decoder

CPU = torch.device("cpu")
TEACHER = "teacher: forward, no graph"
STUDENT = "student: forward, backward, step"
VIEWS = "views of both sizes"
ALONE = "library, all in one thread"
BESIDE = "library, loading beside"
PEER = "peer: gradient through the teacher"

Side = Callable[[], Spent]


def sides_of(setting: Setting, pack: Pack) -> dict[str, Side]:
    """What is measured, by name; each call makes `setting.batches` steps."""
    decode = cached_decoder(pack)
    for row in range(len(pack)):
        decode(row)
    blind = objective_of(setting, pack, decode, CPU, Catcher(setting.dim))
    ready = ready_batches(blind, setting.batches)
    teacher, student = made_teacher(setting, ready[0]), made_student(setting, ready[0])
    objective = replace(blind, teacher=teacher)
    pairs = list(zip(ready, embed_ready(teacher, ready), strict=True))

    def library(threads: int) -> Side:
        return lambda: library_epochs(setting, objective, student, threads=threads)[0]

    return {
        TEACHER: lambda: spent_on(lambda: embed_ready(teacher, ready), CPU),
        STUDENT: lambda: spent_on(lambda: train_ready(setting, student, pairs), CPU),
        VIEWS: lambda: spent_on(lambda: load_all(blind), CPU),
        ALONE: library(0),
        BESIDE: library(1),
        PEER: peer_side(setting, student, teacher, ready),
    }


def load_all(objective: DistillationObjective) -> None:
    """The loader's work on the batches of an epoch."""
    for number, rows in enumerate(objective.batches(0)):
        objective.load(0, number, rows)


def peer_side(
    setting: Setting, student: nn.Module, teacher: nn.Module, ready: list[ReadyBatch]
) -> Side:
    learning = copy.deepcopy(teacher).requires_grad_(True)
    batches = [(batch, None) for batch in ready]

    def steps() -> None:
        train_ready(setting, student, batches, learning)
        learning.zero_grad(set_to_none=True)

    return lambda: spent_on(steps, CPU)


def take_turns(sides: dict[str, Side], rounds: int) -> tuple[dict[str, Spent], dict[str, int]]:
    """The best of the rounds of each side, after one that does not count; resident peaks."""
    all_spent: dict[str, list[Spent]] = {name: [] for name in sides}
    peaks: dict[str, int] = {}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            *_, peaks[name] = measure(
                lambda name=name, side=side: all_spent[name].append(side()), without_files=False
            )
    best = {
        name: Spent(min(one.wall_s for one in counted), min(one.cpu_s for one in counted))
        for name, (_, *counted) in all_spent.items()
    }
    return best, peaks


def report(setting: Setting, best: dict[str, Spent], peaks: dict[str, int]) -> None:
    print(f"{'a step':36}{'wall ms':>9}{'CPU ms':>9}{'peak MiB':>10}")
    for name, spent in best.items():
        wall_ms, cpu_ms = (1000 * s / setting.batches for s in (spent.wall_s, spent.cpu_s))
        print(f"{name:36}{wall_ms:9.1f}{cpu_ms:9.1f}{peaks[name] / MIB:10.0f}")
    bare, full = summed(best, TEACHER, STUDENT), summed(best, TEACHER, STUDENT, VIEWS)
    ratios = (
        ("library in one thread / parts with views", best[ALONE], full),
        ("library, loading beside / parts with views", best[BESIDE], full),
        ("library in one thread / teacher and student", best[ALONE], bare),
        ("peer's step / teacher and student", best[PEER], bare),
    )
    print(f"{'ratios':46}{'wall':>8}{'CPU':>8}")
    for name, ours, parts in ratios:
        print(f"{name:46}{ours.wall_s / parts.wall_s:8.3f}{ours.cpu_s / parts.cpu_s:8.3f}")


def summed(best: dict[str, Spent], *names: str) -> Spent:
    return Spent(sum(best[n].wall_s for n in names), sum(best[n].cpu_s for n in names))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--sizes", type=int, nargs=2, default=(224, 112), help="sides in pixels")
    parser.add_argument("--images", type=int, default=4, help="images of a batch")
    parser.add_argument("--views", type=int, default=4, help="coupled views an image")
    parser.add_argument("--steps", type=int, default=4, help="steps of a round, one a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", type=int, nargs=2, default=(500, 375), help="of the JPEG files")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    setting = Setting(given.backbone, *given.sizes, given.images, given.views, given.steps)
    print(
        f"{setting.backbone}, {setting.teacher_px} -> {setting.student_px} px, {setting.images} "
        f"images x {setting.views} views, {setting.batches} steps a round, best of {given.rounds}"
    )
    with TemporaryDirectory() as folder:
        pack = made_pack(Path(folder), max(64, setting.images * setting.batches), *given.sides)
        best, peaks = take_turns(sides_of(setting, pack), given.rounds)
    report(setting, best, peaks)


if __name__ == "__main__":
    main()
